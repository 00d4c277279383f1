//! NumPy's `.npy` format, versions 1 to 3.
//!
//! In: bytes; out: a tensor, or one line that says what is wrong. Little- and big-endian numbers, both orders of
//! axes, and unicode strings (`U`) are read; numbers are written little-endian and row-major. A bf16 tensor, which
//! NumPy does not know, is written as f32; types of less than a byte are written as the byte they take.

use lapidary_runtime::{DType, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Decodes a file.
pub fn read_npy(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as a .npy file does")?;
    let (&version, rest) = rest.split_first().ok_or("it ends in its header")?;
    let (_, rest) = rest.split_first().ok_or("it ends in its header")?;
    let width = if version == 1 { 2 } else { 4 };
    if !(1..=3).contains(&version) || rest.len() < width {
        return Err(format!("version {version} of the format is not known"));
    }
    let (length, rest) = rest.split_at(width);
    let length = length
        .iter()
        .rev()
        .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    if rest.len() < length {
        return Err("it ends in its header".to_string());
    }
    let (header, data) = rest.split_at(length);
    let header = Header::parse(&String::from_utf8_lossy(header))?;
    header.tensor(data)
}

/// What the header says.
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// The header is a Python dict of three known keys; values are found by their keys.
    fn parse(text: &str) -> Result<Header, String> {
        let after = |key: &str| {
            let at = text
                .find(&format!("'{key}'"))
                .or_else(|| text.find(&format!("\"{key}\"")))
                .ok_or_else(|| format!("its header has no '{key}'"))?;
            let value = text.get(at + key.len() + 2..).unwrap_or_default();
            Ok::<_, String>(
                value
                    .trim_start()
                    .trim_start_matches(':')
                    .trim_start()
                    .to_string(),
            )
        };
        let descr = after("descr")?;
        let descr = descr
            .strip_prefix(['\'', '"'])
            .and_then(|d| d.split(['\'', '"']).next())
            .ok_or("structured arrays are not read")?
            .to_string();
        let fortran = after("fortran_order")?.starts_with("True");
        let shape = after("shape")?;
        let shape = shape
            .strip_prefix('(')
            .and_then(|s| s.split(')').next())
            .ok_or("its header's shape is not a tuple")?
            .split(',')
            .map(str::trim)
            .filter(|dim| !dim.is_empty())
            .map(|dim| {
                dim.parse()
                    .map_err(|_| format!("its header's dim '{dim}' is no number"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Header {
            descr,
            fortran,
            shape,
        })
    }

    fn tensor(&self, data: &[u8]) -> Result<Tensor, String> {
        let big = self.descr.starts_with('>');
        let kind = self.descr.trim_start_matches(['<', '>', '|', '=']);
        let count = self
            .shape
            .iter()
            .try_fold(1usize, |n, dim| n.checked_mul(*dim))
            .ok_or("its shape is larger than memory can hold")?;
        let width = match kind.strip_prefix('U') {
            Some(length) => length
                .parse::<usize>()
                .ok()
                .and_then(|n| n.checked_mul(4))
                .ok_or_else(|| format!("its type '{}' is not known", self.descr))?,
            None => dtype_of(kind)
                .ok_or_else(|| format!("its type '{}' is not known", self.descr))?
                .bytes(),
        };
        let needed = count
            .checked_mul(width)
            .ok_or("its shape is larger than memory can hold")?;
        let Some(data) = data.get(..needed) else {
            return Err(format!(
                "its shape {:?} takes {needed} bytes, it has {}",
                self.shape,
                data.len()
            ));
        };
        let mut data = if self.fortran && self.shape.len() > 1 {
            row_major(data, &self.shape, width)
        } else {
            data.to_vec()
        };
        let Some(dtype) = dtype_of(kind) else {
            return strings(&data, width, big, &self.shape);
        };
        if big {
            // Complex numbers are two numbers, each in its own order.
            let part = if kind.starts_with('c') {
                width / 2
            } else {
                width
            };
            data.chunks_exact_mut(part.max(1)).for_each(<[u8]>::reverse);
        }
        if dtype == DType::Bool {
            data.iter_mut()
                .for_each(|byte| *byte = u8::from(*byte != 0));
        }
        Tensor::from_bytes(dtype, &self.shape, &data).map_err(|error| error.to_string())
    }
}

fn dtype_of(kind: &str) -> Option<DType> {
    Some(match kind {
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" | "?" => DType::Bool,
        "c8" => DType::C64,
        "c16" => DType::C128,
        _ => return None,
    })
}

fn descr_of(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F16 => "<f2",
        DType::F32 | DType::BF16 => "<f4",
        DType::F64 => "<f8",
        DType::I8 | DType::I4 | DType::I2 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::String => return None,
        _ => "|u1",
    })
}

/// Elements from column-major to row-major order.
fn row_major(data: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0usize; shape.len()];
    for _ in 0..data.len().checked_div(width).unwrap_or(0) {
        let mut stride = 1;
        let mut at = 0;
        for (i, dim) in index.iter().zip(shape) {
            at += i * stride;
            stride *= dim;
        }
        out.extend_from_slice(data.get(at * width..(at + 1) * width).unwrap_or_default());
        for (i, dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

/// Fixed-width UTF-32, padded with zeros.
fn strings(data: &[u8], width: usize, big: bool, shape: &[usize]) -> Result<Tensor, String> {
    let count = shape.iter().product();
    let mut texts = Vec::with_capacity(count);
    for i in 0..count {
        let mut text = String::new();
        let element = data.get(i * width..(i + 1) * width).unwrap_or_default();
        for unit in element.as_chunks::<4>().0 {
            let code = if big {
                u32::from_be_bytes(*unit)
            } else {
                u32::from_le_bytes(*unit)
            };
            text.push(char::from_u32(code).ok_or("a string in it is not Unicode")?);
        }
        texts.push(text.trim_end_matches('\0').to_string());
    }
    Tensor::from_strings(shape, texts).map_err(|error| error.to_string())
}

/// Encodes a tensor.
pub fn write_npy(tensor: &Tensor) -> Vec<u8> {
    let (descr, data) = match (tensor.strings(), descr_of(tensor.dtype())) {
        (Ok(texts), _) => {
            let width = texts.iter().map(|t| t.chars().count()).max().unwrap_or(0);
            let width = width.max(1);
            let mut data = Vec::with_capacity(texts.len() * width * 4);
            for text in texts {
                let codes = text.chars().map(u32::from).chain(std::iter::repeat(0));
                codes
                    .take(width)
                    .for_each(|code| data.extend_from_slice(&code.to_le_bytes()));
            }
            (format!("<U{width}"), data)
        }
        (Err(_), descr) => {
            let data = match tensor.dtype() {
                // The upper half of an f32.
                DType::BF16 => {
                    let halves = tensor.bytes().as_chunks::<2>().0;
                    halves.iter().flat_map(|h| [0, 0, h[0], h[1]]).collect()
                }
                _ => tensor.bytes().to_vec(),
            };
            (descr.unwrap_or("|u1").to_string(), data)
        }
    };
    let mut shape: String = tensor
        .shape()
        .iter()
        .map(|dim| format!("{dim}, "))
        .collect();
    if tensor.shape().len() > 1 {
        shape.truncate(shape.len() - 2);
    }
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Data begins at a multiple of 64.
    let used = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(used.next_multiple_of(64) - used));
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(
        &u16::try_from(header.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let tensors = [
            Tensor::from_slice(&[2, 3], &[1.0f32, -2.0, 3.5, 4.0, f32::NAN, 6.0]).unwrap(),
            Tensor::from_slice(&[3], &[1i64, -2, 3]).unwrap(),
            Tensor::scalar(7u8),
            Tensor::from_slice(&[0, 4], &[] as &[f64]).unwrap(),
            Tensor::from_slice(&[2], &[true, false]).unwrap(),
            Tensor::from_strings(&[2], vec!["grün".into(), String::new()]).unwrap(),
        ];
        for tensor in tensors {
            assert_eq!(read_npy(&write_npy(&tensor)), Ok(tensor));
        }
    }

    #[test]
    fn column_major_and_big_endian_arrays_are_put_in_order() {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        file.extend_from_slice(&(header.len() as u16).to_le_bytes());
        file.extend_from_slice(header.as_bytes());
        for value in [1i16, 4, 2, 5, 3, 6] {
            file.extend_from_slice(&value.to_be_bytes());
        }
        let expected = Tensor::from_slice(&[2, 3], &[1i16, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(read_npy(&file), Ok(expected));
    }

    #[test]
    fn broken_files_are_named_not_panicked_on() {
        let good = write_npy(&Tensor::from_slice(&[4], &[1i32, 2, 3, 4]).unwrap());
        for length in 0..good.len() {
            assert!(read_npy(&good[..length]).is_err());
        }
        let huge = String::from_utf8_lossy(&good).replace("(4, )", "(9999999999999,9999999999999)");
        assert!(read_npy(huge.as_bytes()).is_err());
    }
}
