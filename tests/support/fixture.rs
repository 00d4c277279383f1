//! The cases of the ONNX backend suite, as packed in `tests/conformance/suite.bin`.

use std::io::{Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use lapidary::compare::Tolerance;

/// All cases, and the files that they share.
pub struct Suite {
    /// What made it.
    pub producer: String,
    bytes: Bytes,
    /// Where each file stands in `bytes`.
    blobs: Vec<std::ops::Range<usize>>,
    pub cases: Vec<SuiteCase>,
}

/// One case.
pub struct SuiteCase {
    pub name: String,
    pub tolerance: Tolerance,
    /// The number of the model's file.
    pub model: usize,
    /// Numbers of the files of inputs and outputs.
    pub sets: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Suite {
    /// Reads the fixture; see `python/pack_suite.py` for its format.
    pub fn load(path: &Path) -> Suite {
        let packed = std::fs::read(path).expect("the fixture is there");
        let mut archive = zip::ZipArchive::new(Cursor::new(packed)).expect("the fixture is a zip");
        let mut bytes = Vec::new();
        archive
            .by_name("suite")
            .expect("the fixture has its entry")
            .read_to_end(&mut bytes)
            .expect("the fixture can be unpacked");
        let mut reader = Reader {
            bytes: &bytes,
            at: 0,
        };
        assert_eq!(reader.take(8), b"LAPSUITE");
        assert_eq!(reader.number(), 1, "version of the fixture");
        let producer = reader.text();
        let blobs = reader.list(|r| {
            let length = r.number();
            r.take(length);
            r.at - length..r.at
        });
        let cases = reader.list(|r| {
            let kind = r.text();
            let name = r.text();
            SuiteCase {
                name: format!("{kind}/{name}"),
                tolerance: Tolerance {
                    rtol: r.real(),
                    atol: r.real(),
                },
                model: r.number(),
                sets: r.list(|r| (r.list(Reader::number), r.list(Reader::number))),
            }
        });
        assert!(!cases.is_empty(), "the suite is empty");
        Suite {
            producer,
            bytes: bytes.into(),
            blobs,
            cases,
        }
    }

    /// The bytes of a file.
    pub fn blob(&self, number: usize) -> Bytes {
        self.bytes.slice(self.blobs[number].clone())
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        taken
    }

    fn number(&mut self) -> usize {
        let bytes = self.take(4).try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    }

    fn real(&mut self) -> f64 {
        let bytes = self.take(8).try_into().expect("eight bytes");
        f64::from_le_bytes(bytes)
    }

    fn text(&mut self) -> String {
        let length = self.number();
        String::from_utf8(self.take(length).to_vec()).expect("a text is UTF-8")
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.number();
        (0..count).map(|_| item(self)).collect()
    }
}
