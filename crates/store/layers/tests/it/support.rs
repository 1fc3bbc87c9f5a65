//! Helpers of the archive tests.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use ashlar_layers::{
    Entries, KnownFiles, LayerError, ScanOptions, TarOptions, UnpackOptions, Unpacked, scan,
    unpack_tar, write_tar,
};

/// Reads a directory in overlay upper format.
pub(crate) fn entries(dir: &Path) -> Entries {
    let dir = File::open(dir).unwrap();
    scan(dir.as_fd(), &KnownFiles::new(), &ScanOptions::default()).unwrap().entries
}

/// Writes a directory in overlay upper format as a tar.
pub(crate) fn tar_of(dir: &Path, options: &TarOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let root = File::open(dir).unwrap();
    let stats = write_tar(&entries(dir), root.as_fd(), &mut out, options).unwrap();
    assert_eq!(stats.bytes, out.len() as u64);
    out
}

pub(crate) fn unpack(
    tar: &[u8],
    dir: &Path,
    options: &UnpackOptions,
) -> Result<Unpacked, LayerError> {
    unpack_tar(tar, File::open(dir).unwrap().as_fd(), options)
}

/// Builds archives by hand, as broken as wanted; checksums are right unless broken afterwards.
#[derive(Default)]
pub(crate) struct TarBuilder(pub(crate) Vec<u8>);

impl TarBuilder {
    pub(crate) fn member(mut self, kind: u8, name: &[u8], link: &[u8], data: &[u8]) -> Self {
        self.header(kind, name, link, data.len() as u64, |_| ());
        self.data(data);
        self
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.member(b'0', name.as_bytes(), b"", data.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.member(b'5', name.as_bytes(), b"", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(b'2', name.as_bytes(), target.as_bytes(), b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(b'1', name.as_bytes(), target.as_bytes(), b"")
    }

    /// A header alone, changed by `edit` before its checksum is made.
    pub(crate) fn header(
        &mut self,
        kind: u8,
        name: &[u8],
        link: &[u8],
        size: u64,
        edit: impl FnOnce(&mut tar::Header),
    ) {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_500_000_000);
        header.set_size(size);
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    pub(crate) fn data(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// A PAX header for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let len = (1..9)
                .map(|d| body.len() + d)
                .find(|len| len.to_string().len() + body.len() == *len);
            data.extend_from_slice(len.unwrap().to_string().as_bytes());
            data.extend_from_slice(&body);
        }
        self.member(b'x', b"pax", b"", &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
