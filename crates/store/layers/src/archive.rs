//! Reads a tar as a stream of members: ustar, GNU (long names, sparse) and PAX (all that and
//! attributes). Every byte is hostile; nothing is held in memory without a limit.

use std::io::BufRead;

use crate::entry::Xattrs;
use crate::error::{LayerError, Result};
use crate::header::{
    BLOCK, CHECKSUM, DEV_MAJOR, DEV_MINOR, Field, GID, GNU_MORE, GNU_REAL_SIZE, GNU_SPARSE, Header,
    LINK, MAGIC, MAGIC_USTAR, MODE, MTIME, NAME, PREFIX, SIZE, TYPE, UID, padding,
};
use crate::pax;
use crate::sparse::{self, Segments};
use crate::xattr;

/// The largest PAX header or GNU long name that is read: attributes may have 64 KiB each.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// One member of an archive, its data not yet read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    /// As written: may be absolute, hold `..` or end in a slash.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Target of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Xattrs,
    /// Logical length of a regular file.
    pub(crate) size: u64,
    /// Where the stored bytes of a sparse file belong.
    pub(crate) segments: Option<Segments>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// What PAX and GNU extension members said about the next member.
#[derive(Debug, Clone, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: Xattrs,
    sparse: sparse::PaxSparse,
}

/// A tar being read from front to back.
pub(crate) struct Archive<R> {
    input: R,
    offset: u64,
    /// Data and padding of the current member not yet read.
    data_left: u64,
    padding_left: usize,
    global: Extension,
    ended: bool,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(input: R) -> Self {
        let global = Extension::default();
        Self { input, offset: 0, data_left: 0, padding_left: 0, global, ended: false }
    }

    /// Returns the next member, skipping what is left of the current one.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut extension = self.global.clone();
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else { return Ok(None) };
            let kind = header.0[TYPE];
            match kind {
                b'x' | b'X' => {
                    let data = self.read_extension(&header)?;
                    self.read_pax(&data, &mut extension)?;
                }
                b'g' => {
                    let data = self.read_extension(&header)?;
                    let mut global = std::mem::take(&mut self.global);
                    self.read_pax(&data, &mut global)?;
                    extension = global.clone();
                    self.global = global;
                }
                b'L' => extension.path = Some(self.read_long_name(&header)?),
                b'K' => extension.link = Some(self.read_long_name(&header)?),
                // A volume label has no content that would belong into a tree.
                b'V' => self.data_left = 0,
                _ => return self.member(&header, extension).map(Some),
            }
        }
    }

    /// Returns unread data of the current member, at least one byte, or nothing at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8]> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let bytes = self.input.fill_buf().map_err(read_error)?;
        if bytes.is_empty() {
            return Err(malformed(offset, "it ends within a member"));
        }
        let len = bytes.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        Ok(&bytes[..len])
    }

    /// Marks `len` bytes of [`Archive::data`] as read.
    pub(crate) fn consume(&mut self, len: usize) {
        self.input.consume(len);
        self.offset += len as u64;
        self.data_left -= len as u64;
    }

    /// Reads to the end of the stream, so that whoever hashes it sees all of it.
    pub(crate) fn drain(mut self) -> Result<u64> {
        loop {
            let len = self.input.fill_buf().map_err(read_error)?.len();
            if len == 0 {
                return Ok(self.offset);
            }
            self.input.consume(len);
            self.offset += len as u64;
        }
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T> {
        Err(malformed(self.offset, reason))
    }

    fn skip_rest(&mut self) -> Result<()> {
        while self.data_left > 0 {
            let len = self.data()?.len();
            self.consume(len);
        }
        let mut scratch = [0; BLOCK];
        let len = std::mem::take(&mut self.padding_left);
        self.read_exact(&mut scratch[..len])
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<()> {
        let offset = self.offset;
        self.input.read_exact(into).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => malformed(offset, "it ends too early"),
            _ => read_error(error),
        })?;
        self.offset += into.len() as u64;
        Ok(())
    }

    /// Returns the next header; none at the end mark, and at a clean end without one.
    fn read_header(&mut self) -> Result<Option<Header>> {
        if self.ended || self.input.fill_buf().map_err(read_error)?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            self.ended = true;
            return Ok(None);
        }
        let header = Header(block);
        if !header.is_sealed() {
            let blank = header.0[CHECKSUM].iter().all(|&b| b == 0);
            let reason = if blank { "this is not a tar header" } else { "a checksum is wrong" };
            return self.fail(reason);
        }
        let size = self.unsigned(&header, SIZE, "the size of a member is no number")?;
        self.set_data(size);
        Ok(Some(header))
    }

    fn set_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding_left = padding(size);
    }

    fn unsigned(&self, header: &Header, field: Field, reason: &'static str) -> Result<u64> {
        let number = header.number(field).and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| malformed(self.offset, reason))
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = self.data_left;
        if size > EXTENSION_BYTES_MAX {
            let limit = EXTENSION_BYTES_MAX;
            return Err(LayerError::limit("bytes of an extended header", limit, header.text(NAME)));
        }
        let mut data = Vec::new();
        while self.data_left > 0 {
            let part = self.data()?;
            data.extend_from_slice(part);
            let len = part.len();
            self.consume(len);
        }
        Ok(data)
    }

    fn read_long_name(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.read_extension(header)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn read_pax(&self, data: &[u8], into: &mut Extension) -> Result<()> {
        let records = pax::records(data).map_err(|reason| malformed(self.offset, reason))?;
        for (key, value) in records {
            self.read_record(key, value, into)?;
        }
        Ok(())
    }

    fn read_record(&self, key: &[u8], value: &[u8], into: &mut Extension) -> Result<()> {
        let small = |text| pax::decimal(text).and_then(|number| u32::try_from(number).ok());
        let odd = || malformed(self.offset, "a PAX record has an impossible value");
        match key {
            b"path" | b"linkpath" if value.contains(&0) => return Err(odd()),
            b"path" => into.path = Some(value.to_vec()),
            b"linkpath" => into.link = Some(value.to_vec()),
            b"size" => into.size = Some(pax::decimal(value).ok_or_else(odd)?),
            b"uid" => into.uid = Some(small(value).ok_or_else(odd)?),
            b"gid" => into.gid = Some(small(value).ok_or_else(odd)?),
            b"mtime" => into.mtime = Some(pax::seconds(value).ok_or_else(odd)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if xattr::is_kept(name) {
                        into.xattrs.retain(|(other, _)| other != name);
                        into.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    into.sparse.read(name, value).ok_or_else(odd)?;
                }
            }
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, extension: Extension) -> Result<Member> {
        let path = extension.sparse.name.clone().or(extension.path);
        let path = path.unwrap_or_else(|| header_path(header));
        let link = extension.link.unwrap_or_else(|| header.text(LINK).to_vec());
        let kind = self.kind(header, &path)?;
        if let Some(size) = extension.size {
            self.set_data(size);
        }
        // Only files have data, whatever the size field says (as Go's reader, which the others use).
        if kind != Kind::File && header.0[TYPE] != b'D' {
            self.set_data(0);
        }
        let mut member = Member { path, kind, link, xattrs: extension.xattrs, ..Member::default() };
        member.xattrs.sort_unstable();
        let number = |field, reason| self.unsigned(header, field, reason);
        let mode = number(MODE, "the mode of a member is no number")?;
        member.mode = (mode & 0o7777) as u32;
        member.uid = self.owner(header, UID, extension.uid)?;
        member.gid = self.owner(header, GID, extension.gid)?;
        let mtime = extension.mtime.or_else(|| header.number(MTIME));
        member.mtime =
            mtime.ok_or_else(|| malformed(self.offset, "the time of a member is no number"))?;
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let part = |field| {
                let number = number(field, "a device number is no number")?;
                u32::try_from(number)
                    .map_err(|_| malformed(self.offset, "a device number is too large"))
            };
            member.device = (part(DEV_MAJOR)?, part(DEV_MINOR)?);
        }
        if kind == Kind::File {
            self.set_sizes(header, extension.sparse, &mut member)?;
        }
        Ok(member)
    }

    fn owner(&self, header: &Header, field: Field, pax: Option<u32>) -> Result<u32> {
        if let Some(id) = pax {
            return Ok(id);
        }
        let id = self.unsigned(header, field, "the owner of a member is no number")?;
        u32::try_from(id).map_err(|_| malformed(self.offset, "the owner of a member is too large"))
    }

    fn kind(&self, header: &Header, path: &[u8]) -> Result<Kind> {
        Ok(match header.0[TYPE] {
            // Before ustar a directory was a file whose name ends in a slash.
            b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return self.fail("a member is of an unknown type"),
        })
    }

    /// Finds the logical size and, for sparse files, the map.
    fn set_sizes(
        &mut self,
        header: &Header,
        pax: sparse::PaxSparse,
        member: &mut Member,
    ) -> Result<()> {
        member.size = self.data_left;
        let (real_size, segments) = if header.0[TYPE] == b'S' {
            let real = self.unsigned(header, GNU_REAL_SIZE, "a sparse file has no size")?;
            (real, self.read_gnu_map(header)?)
        } else if pax.is_version_1() {
            let real = pax.real_size.ok_or_else(|| malformed(self.offset, "no real size"))?;
            (real, self.read_map_in_data()?)
        } else if let Some(real) = pax.real_size
            && let Some(map) = pax.map
        {
            (real, map)
        } else {
            return Ok(());
        };
        if !sparse::is_sound(&segments, real_size, self.data_left) {
            return self.fail("the map of a sparse file contradicts its size");
        }
        member.size = real_size;
        member.segments = Some(segments);
        Ok(())
    }

    /// GNU's old form: four segments in the header, then 21 in each extension block.
    fn read_gnu_map(&mut self, header: &Header) -> Result<Segments> {
        let mut segments = Segments::new();
        let odd = "the map of a sparse file is no list of numbers";
        let mut push = |bytes: &[u8], offset| {
            sparse::read_gnu_block(bytes, &mut segments).ok_or_else(|| malformed(offset, odd))
        };
        push(&header.0[GNU_SPARSE], self.offset)?;
        let mut more = header.0[GNU_MORE] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            push(&block[..sparse::GNU_BLOCK_MAP_BYTES], self.offset)?;
            more = block[sparse::GNU_BLOCK_MAP_BYTES] != 0;
        }
        Ok(segments)
    }

    /// PAX format 1.0: the map is decimal lines at the start of the data, padded to a block.
    fn read_map_in_data(&mut self) -> Result<Segments> {
        let mut map = sparse::MapReader::default();
        while !map.is_complete() {
            if self.data_left < BLOCK as u64 {
                return self.fail("the map of a sparse file is cut");
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            self.data_left -= BLOCK as u64;
            if map.push(&block).is_none() {
                return self.fail("the map of a sparse file is no list of numbers");
            }
        }
        Ok(map.into_segments())
    }
}

fn header_path(header: &Header) -> Vec<u8> {
    let prefix = header.text(PREFIX);
    let is_posix = header.0[MAGIC][..6] == MAGIC_USTAR[..6];
    if is_posix && !prefix.is_empty() {
        [prefix, b"/", header.text(NAME)].concat()
    } else {
        header.text(NAME).to_vec()
    }
}

fn malformed(offset: u64, reason: &'static str) -> LayerError {
    LayerError::Malformed { offset, reason }
}

fn read_error(source: std::io::Error) -> LayerError {
    LayerError::Stream { action: "read", source }
}
