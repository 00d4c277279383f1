//! Models that are linked into the program, and the typed edges of the bindings that `lapidary::build` generates.
//!
//! A binding is a struct a model, generated while the application builds ([`include_model!`](crate::include_model)). What it
//! is made of stands here: [`StaticModel`] is the code, [`Input`] and [`Output`] are tensors whose element type and
//! rank the compiler of Rust knows.

use std::marker::PhantomData;

use crate::abi;
use crate::context::ModelCode;
use crate::error::{ErrorCode, RuntimeError};
use crate::ffi;
use crate::tensor::{Element, Tensor, TensorView};
use crate::value::OwnedValue;

/// Includes the binding that a build script has generated under this name.
///
/// `build.rs` calls `lapidary::build::compile("model.onnx").out_name("digits").emit()?`; then
/// `lapidary_runtime::include_model!("digits");` defines `struct Digits` here.
#[macro_export]
macro_rules! include_model {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
    };
}

/// The table of a linked model as a symbol; only its address means something.
#[repr(C)]
pub struct StaticTable {
    _opaque: [u8; 0],
}

/// A model that is part of the program.
pub struct StaticModel {
    table: *const ffi::ModelTable,
}

// SAFETY: the table is constant, and there as long as the program.
unsafe impl Send for StaticModel {}
// SAFETY: as above.
unsafe impl Sync for StaticModel {}

impl StaticModel {
    /// The model of a table that the linker has put into the program.
    ///
    /// # Safety
    /// `table` is the address of a symbol `lapidary_model_…` of an object that this version of the compiler has written.
    pub unsafe fn new(table: *const StaticTable) -> Result<StaticModel, RuntimeError> {
        let table: *const ffi::ModelTable = table.cast();
        // SAFETY: every version of the table begins with these two numbers.
        let (version, bytes) = unsafe { ((*table).head.abi_version, (*table).head.table_bytes) };
        if version != abi::ABI_VERSION || (bytes as usize) < abi::MODEL_TABLE_BYTES {
            let message = format!(
                "the linked model has ABI version {version}, this runtime reads {} (hint: the same version of lapidary and lapidary-runtime)",
                abi::ABI_VERSION
            );
            return Err(RuntimeError::plain(ErrorCode::Abi, message));
        }
        Ok(StaticModel { table })
    }
}

// SAFETY: the table was checked for its version, and is part of the program.
unsafe impl ModelCode for StaticModel {
    fn table(&self) -> *const ffi::ModelTable {
        self.table
    }
}

/// A borrowed tensor of `RANK` dims.
///
/// ```
/// use lapidary_runtime::Input;
///
/// let pixels = [0f32; 64];
/// let image: Input<'_, f32, 4> = Input::new([1, 1, 8, 8], &pixels)?;
/// assert_eq!(image.view().shape(), [1, 1, 8, 8]);
/// assert!(Input::<f32, 4>::new([1, 1, 8, 9], &pixels).is_err());
/// # Ok::<(), lapidary_runtime::RuntimeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Input<'a, T, const RANK: usize> {
    view: TensorView<'a>,
    element: PhantomData<T>,
}

impl<'a, T: Element, const RANK: usize> Input<'a, T, RANK> {
    /// Elements in row-major order.
    pub fn new(dims: [usize; RANK], elements: &'a [T]) -> Result<Self, RuntimeError> {
        Ok(Input {
            view: TensorView::from_slice(&dims, elements)?,
            element: PhantomData,
        })
    }

    /// The element at index `i` is `elements[sum(i * strides)]`.
    pub fn with_strides(
        dims: [usize; RANK],
        strides: [usize; RANK],
        elements: &'a [T],
    ) -> Result<Self, RuntimeError> {
        Ok(Input {
            view: TensorView::with_strides(&dims, &strides, elements)?,
            element: PhantomData,
        })
    }

    /// It, without the types.
    pub fn view(&self) -> TensorView<'a> {
        self.view.clone()
    }
}

/// A tensor of `RANK` dims that a run has given.
#[derive(Clone, Debug, PartialEq)]
pub struct Output<T, const RANK: usize> {
    tensor: Tensor,
    element: PhantomData<T>,
}

impl<T: Element, const RANK: usize> Output<T, RANK> {
    /// A tensor of this type and rank.
    pub fn of(tensor: Tensor) -> Result<Self, RuntimeError> {
        tensor.as_slice::<T>()?;
        if tensor.shape().len() != RANK {
            let found = tensor.shape().len();
            let message = format!("an output has rank {found}, expected {RANK}");
            return Err(RuntimeError::plain(ErrorCode::Output, message));
        }
        Ok(Output {
            tensor,
            element: PhantomData,
        })
    }

    /// Its dims.
    pub fn dims(&self) -> [usize; RANK] {
        // `of` has seen to the rank.
        self.tensor.shape().try_into().unwrap_or([0; RANK])
    }

    /// Its elements in row-major order.
    pub fn as_slice(&self) -> &[T] {
        // `of` has seen to the type.
        self.tensor.as_slice().unwrap_or(&[])
    }

    /// It, without the types.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }
}

/// The error of a run that gave fewer outputs than the binding knows.
#[doc(hidden)]
pub fn missing_output() -> RuntimeError {
    RuntimeError::plain(
        ErrorCode::Output,
        "the model gave fewer outputs than its binding knows",
    )
}

/// The tensor that an output is by its binding.
#[doc(hidden)]
pub fn tensor_of(value: OwnedValue) -> Result<Tensor, RuntimeError> {
    match value {
        OwnedValue::Tensor(tensor) => Ok(tensor),
        other => Err(RuntimeError::plain(
            ErrorCode::Output,
            format!("an output is a {}, expected a tensor", other.kind_name()),
        )),
    }
}
