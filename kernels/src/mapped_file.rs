//! A file as host memory.

use std::{fs::File, io, ops::Deref};

use memmap2::Mmap;

/// The bytes of a file, mapped to be read: processes that map it share them. They begin at a page.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps all of it.
    ///
    /// Nobody may write into the file, or cut it, while it is mapped: it is for files of this program's own, which are written
    /// under another name and then renamed.
    #[allow(unsafe_code)]
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes do not change, as the caller is told. A file that someone cuts short all the same ends this process
        // by a signal; it is not read as something else.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
