//! Build records and journals in SQLite or PostgreSQL.
