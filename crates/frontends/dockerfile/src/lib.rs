//! Lowers Dockerfiles to graphs, as BuildKit's dockerfile frontend 1.x reads them.
