//! Data movement of constants, done natively: weights are hundreds of megabytes, and the
//! interpreter is slow by design. All functions move bytes and know no arithmetic, but for
//! [`to_f32`], the widening of stored half floats.

use bytes::Bytes;
use lapidary_graph::{DType, TensorData, minifloat};

fn with(t: &TensorData, dims: Vec<i64>, bytes: impl Into<Bytes>) -> TensorData {
    TensorData {
        dtype: t.dtype,
        dims,
        bytes: bytes.into(),
        strings: Vec::new(),
    }
}

/// The same bytes under other dimensions; `None` when the counts differ.
pub fn reshape(t: &TensorData, dims: &[i64]) -> Option<TensorData> {
    let count: i64 = dims.iter().product();
    (count == t.len() as i64).then(|| TensorData {
        dims: dims.to_vec(),
        ..t.clone()
    })
}

/// Row-major strides, in elements.
fn strides(dims: &[i64]) -> Vec<usize> {
    let mut s = vec![1; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1] * dims[i + 1] as usize;
    }
    s
}

/// Copies the elements at `offset + sum index * stride` in row-major order of `dims`.
fn gather(t: &TensorData, offset: usize, dims: &[i64], stride: &[isize]) -> Option<TensorData> {
    let bytes = match t.dtype {
        DType::String => return None,
        d => match d.bytes() {
            1 => gather_sized::<1>(&t.bytes, offset, dims, stride)?,
            2 => gather_sized::<2>(&t.bytes, offset, dims, stride)?,
            4 => gather_sized::<4>(&t.bytes, offset, dims, stride)?,
            16 => gather_sized::<16>(&t.bytes, offset, dims, stride)?,
            _ => gather_sized::<8>(&t.bytes, offset, dims, stride)?,
        },
    };
    Some(with(t, dims.to_vec(), bytes))
}

/// [`gather`] for elements of `N` bytes.
fn gather_sized<const N: usize>(
    bytes: &[u8],
    offset: usize,
    dims: &[i64],
    stride: &[isize],
) -> Option<Vec<u8>> {
    let (from, _) = bytes.as_chunks::<N>();
    let count: usize = dims.iter().map(|d| *d as usize).product();
    let mut out: Vec<[u8; N]> = Vec::with_capacity(count);
    if count == 0 {
        return Some(Vec::new());
    }
    let outer = dims.len().saturating_sub(1);
    let (inner, step) = match dims.last() {
        None => (1, 1),
        Some(d) => (*d as usize, stride[outer]),
    };
    let mut index = vec![0; outer];
    let mut at = offset as isize;
    loop {
        let first = at as usize;
        if step == 1 {
            out.extend_from_slice(from.get(first..first + inner)?);
        } else if step > 1 {
            let row = from.get(first..=first + (inner - 1) * step as usize)?;
            out.extend(row.iter().step_by(step as usize));
        } else {
            for i in 0..inner as isize {
                out.push(*from.get((at + i * step) as usize)?);
            }
        }
        let mut axis = outer;
        loop {
            if axis == 0 {
                return Some(out.into_flattened());
            }
            axis -= 1;
            index[axis] += 1;
            at += stride[axis];
            if index[axis] < dims[axis] {
                break;
            }
            at -= stride[axis] * dims[axis] as isize;
            index[axis] = 0;
        }
    }
}

/// Axis `i` of the result is axis `perm[i]` of `t`.
pub fn transpose(t: &TensorData, perm: &[usize]) -> Option<TensorData> {
    let s = strides(&t.dims);
    let dims: Vec<i64> = perm.iter().map(|p| t.dims[*p]).collect();
    let stride: Vec<isize> = perm.iter().map(|p| s[*p] as isize).collect();
    gather(t, 0, &dims, &stride)
}

/// One start, step and size an axis.
pub fn slice(t: &TensorData, start: &[i64], step: &[i64], size: &[i64]) -> Option<TensorData> {
    let s = strides(&t.dims);
    let mut offset = 0i64;
    for i in 0..t.dims.len() {
        if size[i] > 0 {
            let last = start[i] + step[i] * (size[i] - 1);
            let inside = 0..t.dims[i];
            if !inside.contains(&start[i]) || !inside.contains(&last) {
                return None;
            }
        }
        offset += start[i] * s[i] as i64;
    }
    let stride: Vec<isize> = (0..s.len())
        .map(|i| s[i] as isize * step[i] as isize)
        .collect();
    let offset = if size.contains(&0) { 0 } else { offset };
    gather(t, offset as usize, size, &stride)
}

/// `t` repeated to `dims` by the ONNX rule.
pub fn broadcast(t: &TensorData, dims: &[i64]) -> Option<TensorData> {
    let s = strides(&t.dims);
    let lead = dims.len().checked_sub(t.dims.len())?;
    let mut stride = vec![0isize; dims.len()];
    for i in 0..t.dims.len() {
        match t.dims[i] {
            1 => {}
            d if d == dims[lead + i] => stride[lead + i] = s[i] as isize,
            _ => return None,
        }
    }
    gather(t, 0, dims, &stride)
}

/// Concatenation along an axis; all of one type.
pub fn concat(parts: &[&TensorData], axis: usize) -> Option<TensorData> {
    let first = parts.first()?;
    if first.dtype == DType::String || parts.iter().any(|p| p.dtype != first.dtype) {
        return None;
    }
    let size = first.dtype.bytes();
    let outer: usize = first.dims[..axis].iter().map(|d| *d as usize).product();
    let run = |p: &TensorData| -> usize {
        let inner: i64 = p.dims[axis..].iter().product();
        inner as usize * size
    };
    let mut dims = first.dims.clone();
    dims[axis] = parts.iter().map(|p| p.dims[axis]).sum();
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.bytes.len()).sum());
    for o in 0..outer {
        for p in parts {
            let r = run(p);
            out.extend_from_slice(p.bytes.get(o * r..(o + 1) * r)?);
        }
    }
    Some(with(first, dims, out))
}

/// The elements as f32, when the type is a float.
pub fn to_f32(t: &TensorData) -> Option<TensorData> {
    let two = |f: fn(u16) -> f32| -> Vec<f32> {
        let pairs = t.bytes.chunks_exact(2);
        pairs.map(|c| f(u16::from_le_bytes([c[0], c[1]]))).collect()
    };
    let values = match t.dtype {
        DType::F32 => return Some(t.clone()),
        DType::F16 => two(|b| half::f16::from_bits(b).to_f32()),
        DType::BF16 => two(|b| half::bf16::from_bits(b).to_f32()),
        small if small.is_minifloat() => {
            let numbers: Vec<f32> = (0..=255)
                .map(|code| minifloat::decode(small, code) as f32)
                .collect();
            t.bytes.iter().map(|b| numbers[*b as usize]).collect()
        }
        _ => return None,
    };
    Some(TensorData::from_f32(t.dims.clone(), &values))
}
