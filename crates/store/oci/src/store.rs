//! Local images by name: what `images list` shows, what `FROM` finds without a registry, and what
//! garbage collection must keep.
//!
//! In `DIR/images`: `records/<id>.json` holds one image of one platform, `names/<hash>.json` holds
//! a name and the records it leads to, one a platform. Files are replaced by renaming, so readers
//! see the old or the new one; writers of all processes take turns by a lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ashlar_core::{Digest, Platform, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::image::LocalImage;
use crate::reference::Reference;

/// The local images of a data directory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    root: PathBuf,
}

/// A name and what it leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedImages {
    /// The name.
    pub name: Reference,
    /// The index that the images came in, if they came in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// Ids of the images, one a platform.
    pub images: Vec<Digest>,
    /// When the name was set.
    pub tagged: Timestamp,
}

/// What removing a name did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// Images that are gone since no name leads to them any more.
    pub deleted: Vec<Digest>,
}

/// What local images need, for garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    /// Blobs: manifests, indexes, configs and layers.
    pub blobs: BTreeSet<Digest>,
    /// Trees of the snapshot store.
    pub trees: BTreeSet<Digest>,
}

/// The local image store failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageStoreError {
    /// No image has this name or id.
    #[error("no local image '{0}'; `ashlar images list` shows what there is")]
    Unknown(String),
    /// An id fits several images.
    #[error("'{0}' is the start of several image ids; give more digits")]
    Unclear(String),
    /// The file system refused, or a record is damaged.
    #[error(transparent)]
    File(#[from] FileError),
}

type Result<T, E = ImageStoreError> = std::result::Result<T, E>;

/// How exact the time is at which an image was last given, in nanoseconds.
const CREATED_NANOS_FINE: i64 = 60 * 1_000_000_000;

impl ImageStore {
    /// Opens the image store below `data_dir`, making it when it is new.
    ///
    /// # Errors
    /// When a directory can not be made.
    pub fn open(data_dir: impl AsRef<Path>) -> Result<Self> {
        let store = Self { root: data_dir.as_ref().join("images") };
        for dir in ["records", "names", "pulled", "private"] {
            files::create_dir(&store.root.join(dir))?;
        }
        Ok(store)
    }

    /// Adds images, one a platform, and lets `names` lead to them. Returns their ids.
    ///
    /// The same image added again has the same id, unless its layers became archives meanwhile.
    ///
    /// # Errors
    /// When a file can not be written.
    pub fn add(
        &self,
        images: &[LocalImage],
        names: &[Reference],
        index: Option<Digest>,
    ) -> Result<Vec<Digest>> {
        let ids: Vec<Digest> = images.iter().map(id_of).collect();
        let paths: Vec<PathBuf> = names.iter().map(|name| self.name_path(name)).collect();
        let staged = names
            .iter()
            .zip(&paths)
            .map(|(name, path)| files::Staged::new(path, &named(name, index, ids.clone())));
        let staged: Vec<_> = staged.collect::<Result<_, _>>()?;
        let _lock = self.lock()?;
        for (id, image) in ids.iter().zip(images) {
            let known = self.record(id)?;
            let image = match known.clone() {
                Some(known) => merged(known, image.clone()),
                None => image.clone(),
            };
            if !known.is_some_and(|known| says_the_same(&known, &image)) {
                files::write_json(&self.record_path(id), &image)?;
            }
        }
        for name in staged {
            name.publish()?;
        }
        Ok(ids)
    }

    /// Replaces the record of an image, for example when its layers got archives.
    ///
    /// # Errors
    /// [`ImageStoreError::Unknown`]; when the file can not be written.
    pub fn update(&self, id: &Digest, image: &LocalImage) -> Result<()> {
        let _lock = self.lock()?;
        self.record(id)?.ok_or_else(|| ImageStoreError::Unknown(id.to_string()))?;
        Ok(files::write_json(&self.record_path(id), image)?)
    }

    /// Returns the image that `name` leads to for `platform`.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn find(
        &self,
        name: &Reference,
        platform: &Platform,
    ) -> Result<Option<(Digest, LocalImage)>> {
        let Some(named) = self.named(name)? else { return Ok(None) };
        let wanted = platform.clone().normalised();
        for id in named.images {
            if let Some(mut image) = self.record(&id)?
                && image.platform.clone().normalised() == wanted
            {
                image.names = vec![named.name];
                return Ok(Some((id, image)));
            }
        }
        Ok(None)
    }

    /// Returns what `name` leads to, all platforms.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn named(&self, name: &Reference) -> Result<Option<NamedImages>> {
        Ok(files::read_json(&self.name_path(name))?)
    }

    /// Returns the image with the id `id`, without its names.
    ///
    /// # Errors
    /// When the record can not be read.
    pub fn record(&self, id: &Digest) -> Result<Option<LocalImage>> {
        Ok(files::read_json(&self.record_path(id))?)
    }

    /// Says whether there is an image with that id.
    pub fn has(&self, id: &Digest) -> bool {
        self.record_path(id).exists()
    }

    /// Finds images by a name, a whole id or the start of an id of at least four digits.
    ///
    /// # Errors
    /// [`ImageStoreError::Unknown`], [`ImageStoreError::Unclear`]; when a record can not be read.
    pub fn look_up(&self, text: &str) -> Result<Vec<Digest>> {
        if let Ok(name) = text.parse::<Reference>()
            && let Some(named) = self.named(&name)?
        {
            return Ok(named.images);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let unknown = || ImageStoreError::Unknown(text.chars().take(200).collect());
        if hex.len() < 4 {
            return Err(unknown());
        }
        let ids = self.ids()?;
        let fitting: Vec<_> = ids.into_iter().filter(|id| id.hex().starts_with(hex)).collect();
        match fitting[..] {
            [] => Err(unknown()),
            [_] => Ok(fitting),
            _ => Err(ImageStoreError::Unclear(text.to_owned())),
        }
    }

    /// Lists all images with their ids and names, the newest first.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn list(&self) -> Result<Vec<(Digest, LocalImage)>> {
        let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for named in self.names()? {
            for id in named.images {
                names.entry(id).or_default().push(named.name.clone());
            }
        }
        let mut images = Vec::new();
        for id in self.ids()? {
            // It may have been removed since it was listed.
            if let Some(mut image) = self.record(&id)? {
                image.names = names.remove(&id).unwrap_or_default();
                images.push((id, image));
            }
        }
        images.sort_by_key(|(id, image)| (std::cmp::Reverse(image.created), *id));
        Ok(images)
    }

    /// Lists all names.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn names(&self) -> Result<Vec<NamedImages>> {
        self.read_all("names")
    }

    /// Lets `name` lead to what `from` (a name or an id) leads to.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up); when the file can not be written.
    pub fn tag(&self, from: &str, name: &Reference) -> Result<()> {
        let _lock = self.lock()?;
        let images = self.look_up(from)?;
        let source = from.parse::<Reference>().ok().map(|r| self.named(&r)).transpose()?.flatten();
        self.write_name(name, source.and_then(|s| s.index), images)
    }

    /// Removes a name, or all names of an id, and the images that no name leads to then.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up); when a file can not be removed.
    pub fn remove(&self, text: &str) -> Result<Removed> {
        let _lock = self.lock()?;
        let ids = self.look_up(text)?;
        let as_name = text.parse::<Reference>().ok();
        let is_name = |n: &NamedImages| as_name.as_ref() == Some(&n.name);
        let (mut gone, mut kept): (Vec<_>, Vec<_>) = self.names()?.into_iter().partition(is_name);
        if gone.is_empty() {
            (gone, kept) = kept.into_iter().partition(|n| n.images.iter().any(|i| ids.contains(i)));
        }
        let mut removed = Removed::default();
        for named in gone {
            files::remove(&self.name_path(&named.name))?;
            removed.untagged.push(named.name);
        }
        for id in ids {
            if !kept.iter().any(|n| n.images.contains(&id)) {
                files::remove(&self.record_path(&id))?;
                removed.deleted.push(id);
            }
        }
        Ok(removed)
    }

    /// Removes an image unless a name leads to it; says whether it is gone.
    ///
    /// # Errors
    /// When a file can not be read or removed.
    pub fn remove_untagged(&self, id: &Digest) -> Result<bool> {
        let _lock = self.lock()?;
        if self.names()?.iter().any(|named| named.images.contains(id)) {
            return Ok(false);
        }
        files::remove(&self.record_path(id))?;
        Ok(true)
    }

    /// Returns what local images need. What pulls have cached is not among it: that may go.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn roots(&self) -> Result<Roots> {
        let mut roots = Roots::default();
        for id in self.ids()? {
            let Some(image) = self.record(&id)? else { continue };
            roots.blobs.extend(image.manifest.as_ref().map(|m| m.digest));
            roots.blobs.extend(image.config_digest);
            for layer in image.layers {
                roots.blobs.extend(layer.blob.map(|b| b.digest));
                roots.trees.extend(layer.tree);
            }
        }
        roots.blobs.extend(self.names()?.into_iter().filter_map(|n| n.index));
        Ok(roots)
    }

    /// Returns the directory that the pull cache keeps its records in.
    pub(crate) fn pulled_dir(&self) -> PathBuf {
        self.root.join("pulled")
    }

    /// Returns the directory of marks of private content.
    pub(crate) fn private_dir(&self) -> PathBuf {
        self.root.join("private")
    }

    fn write_name(
        &self,
        name: &Reference,
        index: Option<Digest>,
        images: Vec<Digest>,
    ) -> Result<()> {
        Ok(files::write_json(&self.name_path(name), &named(name, index, images))?)
    }

    fn ids(&self) -> Result<Vec<Digest>> {
        let names = files::list(&self.root.join("records"))?;
        let id = |n: &String| Digest::from_hex(n.strip_suffix(".json")?).ok();
        Ok(names.iter().filter_map(id).collect())
    }

    fn read_all<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>> {
        let dir = self.root.join(folder);
        let mut all = Vec::new();
        for name in files::list(&dir)?.iter().filter(|n| n.ends_with(".json")) {
            all.extend(files::read_json(&dir.join(name))?);
        }
        Ok(all)
    }

    fn record_path(&self, id: &Digest) -> PathBuf {
        self.root.join("records").join(format!("{}.json", id.hex()))
    }

    /// Names may be longer than file names may be, hence the hash.
    fn name_path(&self, name: &Reference) -> PathBuf {
        let hash = Digest::of(name.to_string());
        self.root.join("names").join(format!("{}.json", hash.hex()))
    }

    /// Waits until no other writer is at work; the lock ends when the file is closed.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let locked = || -> io::Result<File> {
            let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        Ok(locked().map_err(|source| FileError::new("lock", &path, source))?)
    }
}

fn named(name: &Reference, index: Option<Digest>, images: Vec<Digest>) -> NamedImages {
    NamedImages { name: name.clone(), index, images, tagged: files::now() }
}

/// Whether a record need not be written again: builds that the cache answers give the same image many times a second.
fn says_the_same(known: &LocalImage, new: &LocalImage) -> bool {
    let age = new.created.nanos().saturating_sub(known.created.nanos());
    (0..CREATED_NANOS_FINE).contains(&age)
        && *known
            == LocalImage { created: known.created, names: known.names.clone(), ..new.clone() }
}

/// Joins what two records of the same image know: a build that gives an image anew must not
/// forget that it was exported, nor an import that it is unpacked.
fn merged(known: LocalImage, new: LocalImage) -> LocalImage {
    let keeps_known = known.manifest.is_some() && new.manifest.is_none();
    let (mut image, other) = if keeps_known { (known, new.clone()) } else { (new.clone(), known) };
    for (layer, other) in image.layers.iter_mut().zip(other.layers) {
        layer.tree = layer.tree.or(other.tree);
        layer.diff_id = layer.diff_id.or(other.diff_id);
        layer.blob = layer.blob.take().or(other.blob);
    }
    (image.origin, image.created) = (new.origin, new.created);
    image
}

/// Returns the id of an image: what does not change when layers become archives.
fn id_of(image: &LocalImage) -> Digest {
    let mut hasher = ashlar_core::Hasher::new();
    hasher.field("local image").field(image.platform.to_string());
    let mut config = image.config.clone();
    if let Some(rootfs) = config.get_mut("rootfs").and_then(|r| r.as_object_mut()) {
        rootfs.remove("diff_ids");
    }
    hasher.field(config.to_string());
    for layer in &image.layers {
        let id = layer.tree.or(layer.diff_id).or(layer.blob.as_ref().map(|b| b.digest));
        hasher.field(id.map(|d| d.to_string()).unwrap_or_default());
    }
    hasher.finish()
}
