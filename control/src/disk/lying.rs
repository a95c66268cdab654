//! A disk for tests that loses, in a crash, what was not synced; or some of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::{Builder, Database, StorageBackend};

use crate::disk::Disk;
use crate::error::StoreError;

/// Files by name.
#[derive(Debug, Default)]
pub(crate) struct LyingDisk {
    files: Mutex<BTreeMap<String, Platter>>,
    power: Arc<Mutex<Power>>,
}

/// How the disk is.
#[derive(Debug, Default)]
pub(crate) struct Power {
    /// Syncs that are still done before the power goes; none: it stays.
    pub(crate) syncs_left: Option<u64>,
    /// It says that it synced, and did not.
    pub(crate) lies: bool,
    pub(crate) off: bool,
}

#[derive(Debug, Clone, Default)]
struct Platter(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    /// As it is read.
    seen: Vec<u8>,
    /// As it will be after a crash, less some of what is pending.
    durable: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Debug, Clone)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

impl Write {
    fn done(&self, content: &mut Vec<u8>) {
        match self {
            Self::Bytes(offset, bytes) => {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

impl LyingDisk {
    pub(crate) fn with(power: Power) -> Self {
        Self { files: Mutex::default(), power: Arc::new(Mutex::new(power)) }
    }

    /// The disk after the power went and came back. `luck` says, bit by bit, which of the writes
    /// that were not synced are there nevertheless.
    pub(crate) fn after_the_crash(&self, mut luck: u64) -> Self {
        let after = Self::default();
        for (name, platter) in self.files.lock().unwrap().iter() {
            let before = platter.0.lock().unwrap();
            let mut durable = before.durable.clone();
            for write in &before.pending {
                if luck & 1 == 1 {
                    write.done(&mut durable);
                }
                luck = luck.rotate_right(1);
            }
            let content = Content { seen: durable.clone(), durable, pending: Vec::new() };
            let platter = Platter(Arc::new(Mutex::new(content)));
            after.files.lock().unwrap().insert(name.clone(), platter);
        }
        after
    }
}

impl Disk for LyingDisk {
    fn open(&self, name: &str, builder: &Builder) -> Result<Database, StoreError> {
        let platter = self.files.lock().unwrap().entry(name.to_owned()).or_default().clone();
        let spindle = Spindle { platter, power: Arc::clone(&self.power) };
        builder.create_with_backend(spindle).map_err(|error| StoreError::Database {
            file: name.into(),
            source: Box::new(error.into()),
        })
    }

    fn folder(&self) -> &Path {
        Path::new("/lying")
    }
}

#[derive(Debug)]
struct Spindle {
    platter: Platter,
    power: Arc<Mutex<Power>>,
}

impl Spindle {
    fn powered(&self) -> Result<(), io::Error> {
        let off = self.power.lock().unwrap().off;
        if off { Err(io::Error::other("there is no power")) } else { Ok(()) }
    }

    fn write_down(&self, write: Write) -> Result<(), io::Error> {
        self.powered()?;
        let mut content = self.platter.0.lock().unwrap();
        write.done(&mut content.seen);
        content.pending.push(write);
        Ok(())
    }
}

impl StorageBackend for Spindle {
    fn len(&self) -> Result<u64, io::Error> {
        self.powered()?;
        Ok(self.platter.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.powered()?;
        let offset = usize::try_from(offset).unwrap();
        let content = self.platter.0.lock().unwrap();
        match content.seen.get(offset..offset + out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.write_down(Write::Length(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.powered()?;
        let mut power = self.power.lock().unwrap();
        if let Some(left) = &mut power.syncs_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    power.off = true;
                    return Err(io::Error::other("the power goes"));
                }
            }
        }
        if !power.lies {
            let mut content = self.platter.0.lock().unwrap();
            content.pending.clear();
            content.durable = content.seen.clone();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.write_down(Write::Bytes(usize::try_from(offset).unwrap(), data.to_owned()))
    }
}
