//! Context directories and the execution of file operations.
//!
//! The outline of the API (blocking; two threads of its own at work):
//!
//! ```text
//! trait Ignore { excluded(path) -> bool, may_descend(dir) -> bool }   Patterns implements it
//!
//! Context::open(dir, Arc<dyn Ignore>, cache_dir) -> Context           Sync, cheap to share
//!   select(&Copy) -> Arc<Selection>          memoised: what was keyed is what is copied
//!   read(path, max), list(path)              for frontends' questions
//!   save()                                   writes the stat cache
//!
//! Selection
//!   digest() -> Digest                       content: paths, types, modes, sizes, links, bytes
//!   key_parts() -> Vec<KeyPart>              a part a file, or a part a directory and the total
//!   manifest() -> &Manifest, stats()         full list by digest; Manifest::changes_since(&old)
//!
//! ops::apply(actions, &Base, &[Input], &mut KnownFiles, &Options) -> Applied
//!   Base { root, upper }                     merged tree, and its upper directory if it has one
//!   Input::Context(&Context) | Input::Tree(&Root)
//!   Options { reuse: Option<Reuse>, stop }   earlier layer whose unchanged files are linked
//! ops::lookup::resolve_user(&Root, "name|uid[:group|gid]") -> Ids { uid, gid, groups }
//! ```
