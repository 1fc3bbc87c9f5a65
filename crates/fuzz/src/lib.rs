//! What every parser of bytes from outside must survive, one function a parser: it takes any bytes
//! and panics when a promise is broken. `make fuzz` gives them to libFuzzer; the tests give them
//! seeds and what comes of changing those.

mod dockerfile;
mod files;
mod ignore;
mod log;
mod text;

pub use dockerfile::dockerfile;
pub use files::{archive, layer};
pub use ignore::ignore;
pub use log::log;
pub use text::{context, declarative, manifest, query, reference};

/// A target: its name, what it does, and bytes to start from.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static [u8]]);

/// Every target.
pub const TARGETS: [Target; 10] = [
    ("dockerfile", dockerfile, &[DOCKERFILE]),
    ("ignore", ignore, &[b"a/b/c.txt\n*\n!a/**/c.*\n# no\n[a-z]?\\*\n"]),
    ("declarative", declarative, &[STEPS]),
    ("layer", layer, &[]),
    ("archive", archive, &[]),
    ("manifest", manifest, &[MANIFEST]),
    ("reference", reference, &[b"registry.example.com:5000/a/b_c.d:v1.2-x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]),
    ("context", context, &[CONTEXT]),
    ("log", log, &[LOG_LINES, LOG_TEXT]),
    ("query", query, &[b"state:failed scope:a/b label:team=x created:2026-01-01..2026-02-01 \"free text\""]),
];

const DOCKERFILE: &[u8] = b"# syntax=docker/dockerfile:1\n# escape=`\nARG V=1\nFROM --platform=$BUILDPLATFORM a:${V:-2} AS x\n\
    RUN --mount=type=cache,target=/c,id=${V%.*} <<EOT sh -e\necho $V\nEOT\nENV A=\"b c\" D=${A/b/d}\n\
    FROM onbuild\nCOPY --from=x --chown=1:2 --exclude=*.o /a* [\"b\", \"c\"]\nHEALTHCHECK --interval=5s CMD x\n\
    ADD --checksum=sha256:00 https://example.com/x /y\nONBUILD RUN z\nSHELL [\"/bin/sh\"]\nEXPOSE 1-3/udp\n";
const STEPS: &[u8] = br#"[{"type":"run","command":"make","user":"a"},{"type":"copy","src":"a","dest":"/b"},{"type":"env","envs":{"A":"b"}},{"type":"workdir","path":"/w"}]"#;
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"layers":[]}"#;
const CONTEXT: &[u8] = br#"{"files":[{"path":"a/b","kind":"file","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},{"path":"l","kind":"symlink","target":"../a"},{"path":"d","kind":"dir","mode":493}]}"#;
/// Two lines, the second one partial, as single lines and as text.
const LOG_LINES: &[u8] = b"\x01\0\x04\x02\x03one\0\xc4\0\x02tw\x02\xfft";
const LOG_TEXT: &[u8] = b"\x03\x02\0\x04\x02\x02\x08\x05\x85\0\x01\x02one\ntwo\nhi";
