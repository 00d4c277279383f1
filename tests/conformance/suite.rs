//! The fixtures: cases with their files; see `python/pack_suite.py` for the format.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lapidary::case::DataSet;
use lapidary::compare::Tolerance;
use lapidary::{Error, Model};

pub struct Suite {
    /// What made each fixture.
    pub producers: Vec<String>,
    files: Vec<Bytes>,
    pub cases: Vec<Case>,
}

pub struct Case {
    /// `kind/name`.
    pub name: String,
    pub tolerance: Tolerance,
    /// Number of its file.
    pub model: usize,
    /// Numbers of the files of inputs and outputs.
    sets: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Case {
    /// `node`, `simple`, or `old` for what is not of the suite.
    pub fn kind(&self) -> &str {
        self.name.split_once('/').map_or("", |(kind, _)| kind)
    }
}

impl Suite {
    pub fn load(paths: &[PathBuf]) -> Suite {
        let mut suite = Suite {
            producers: Vec::new(),
            files: Vec::new(),
            cases: Vec::new(),
        };
        paths.iter().for_each(|path| suite.add(path));
        suite
    }

    fn add(&mut self, path: &Path) {
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
        self.producers.push(reader.text());
        let blobs = reader.list(|r| {
            let length = r.number();
            r.take(length);
            r.at - length..r.at
        });
        let before = self.files.len();
        let number = |r: &mut Reader| before + r.number();
        let cases = reader.list(|r| {
            let kind = r.text();
            let name = r.text();
            Case {
                name: format!("{kind}/{name}"),
                tolerance: Tolerance {
                    rtol: r.real(),
                    atol: r.real(),
                },
                model: number(r),
                sets: r.list(|r| (r.list(number), r.list(number))),
            }
        });
        assert!(!cases.is_empty(), "{}: no cases", path.display());
        self.cases.extend(cases);
        let bytes = Bytes::from(bytes);
        self.files.extend(blobs.into_iter().map(|b| bytes.slice(b)));
    }

    /// The bytes of a file.
    pub fn blob(&self, number: usize) -> Bytes {
        self.files[number].clone()
    }

    /// The encoded model.
    pub fn bytes(&self, case: &Case) -> Bytes {
        self.blob(case.model)
    }

    pub fn model(&self, case: &Case) -> Result<Model, Error> {
        Model::from_bytes(self.bytes(case), None)
    }

    pub fn sets(&self, case: &Case, model: &Model) -> Result<Vec<DataSet>, Error> {
        let files = |blobs: &[usize], stem: &str| -> Vec<(Bytes, PathBuf)> {
            let named = blobs.iter().enumerate();
            named
                .map(|(i, b)| (self.blob(*b), format!("{stem}_{i}.pb").into()))
                .collect()
        };
        let sets = case.sets.iter().enumerate();
        sets.map(|(number, (inputs, outputs))| {
            DataSet::decode(
                model,
                &number.to_string(),
                &files(inputs, "input"),
                &files(outputs, "output"),
            )
        })
        .collect()
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
