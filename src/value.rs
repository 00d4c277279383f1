//! What goes into a run and what comes out, as `ndarray` has it.
//!
//! [`Value`] borrows an array of any layout, a runtime [`Tensor`] or strings; [`Output`] owns its tensor and lends or
//! gives arrays. Arrays that are not row-major go in as they are where the runtime can read them, and as a copy
//! where a stride is negative.

use lapidary_runtime::{DType, Element, RuntimeError, Tensor, TensorView};
use ndarray::{Array, ArrayD, ArrayView, ArrayViewD, Dimension, IxDyn};

macro_rules! values {
    ($($name:ident $rust:ty;)*) => {
        /// An input, borrowed.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum Value<'a> {
            $(#[doc = concat!("An array of `", stringify!($rust), "`.")] $name(ArrayViewD<'a, $rust>),)*
            /// An array of strings.
            String(ArrayViewD<'a, String>),
            /// A tensor of any type.
            Tensor(&'a Tensor),
        }

        impl Value<'_> {
            /// The element type.
            pub fn dtype(&self) -> DType {
                match self {
                    $(Value::$name(_) => <$rust as Element>::DTYPE,)*
                    Value::String(_) => DType::String,
                    Value::Tensor(tensor) => tensor.dtype(),
                }
            }

            /// The dims.
            pub fn shape(&self) -> &[usize] {
                match self {
                    $(Value::$name(array) => array.shape(),)*
                    Value::String(array) => array.shape(),
                    Value::Tensor(tensor) => tensor.shape(),
                }
            }

            /// A tensor of the same elements, without a copy where the layout allows.
            pub(crate) fn lend(&self) -> Result<Lent<'_>, RuntimeError> {
                match self {
                    $(Value::$name(array) => lend(array),)*
                    Value::String(array) => {
                        let strings = array.iter().cloned().collect();
                        Tensor::from_strings(array.shape(), strings).map(Lent::Copy)
                    }
                    Value::Tensor(tensor) => Ok(Lent::View(tensor.view())),
                }
            }
        }

        $(
            impl<'a, D: Dimension> From<ArrayView<'a, $rust, D>> for Value<'a> {
                fn from(array: ArrayView<'a, $rust, D>) -> Self {
                    Value::$name(array.into_dyn())
                }
            }

            impl<'a, D: Dimension> From<&'a Array<$rust, D>> for Value<'a> {
                fn from(array: &'a Array<$rust, D>) -> Self {
                    array.view().into()
                }
            }
        )*
    };
}

values! {
    F32 f32;
    F64 f64;
    F16 half::f16;
    BF16 half::bf16;
    I8 i8;
    I16 i16;
    I32 i32;
    I64 i64;
    U8 u8;
    U16 u16;
    U32 u32;
    U64 u64;
    Bool bool;
}

impl<'a, D: Dimension> From<ArrayView<'a, String, D>> for Value<'a> {
    fn from(array: ArrayView<'a, String, D>) -> Self {
        Value::String(array.into_dyn())
    }
}

impl<'a, D: Dimension> From<&'a Array<String, D>> for Value<'a> {
    fn from(array: &'a Array<String, D>) -> Self {
        array.view().into()
    }
}

impl<'a> From<&'a Tensor> for Value<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Value::Tensor(tensor)
    }
}

/// An array as the runtime takes it.
pub(crate) enum Lent<'a> {
    View(TensorView<'a>),
    Copy(Tensor),
}

impl Lent<'_> {
    pub(crate) fn view(&self) -> TensorView<'_> {
        match self {
            Lent::View(view) => view.clone(),
            Lent::Copy(tensor) => tensor.view(),
        }
    }
}

fn lend<'b, T: Element>(array: &'b ArrayViewD<'_, T>) -> Result<Lent<'b>, RuntimeError> {
    match array.as_slice() {
        Some(elements) => TensorView::from_slice(array.shape(), elements).map(Lent::View),
        None => {
            let elements: Vec<T> = array.iter().copied().collect();
            Tensor::from_slice(array.shape(), &elements).map(Lent::Copy)
        }
    }
}

/// A result of a run.
#[derive(Clone, Debug)]
pub struct Output {
    /// The ONNX name.
    pub name: String,
    /// The value.
    pub tensor: Tensor,
}

impl Output {
    /// The value as an array; an error if its elements are not `T`.
    pub fn view<T: Element>(&self) -> Result<ArrayViewD<'_, T>, RuntimeError> {
        let elements = self.tensor.as_slice::<T>()?;
        ArrayViewD::from_shape(IxDyn(self.tensor.shape()), elements).map_err(|_| {
            RuntimeError::TensorSize {
                dtype: T::DTYPE,
                shape: self.tensor.shape().to_vec(),
                found: elements.len(),
            }
        })
    }

    /// The value as an array of its own; an error if its elements are not `T`.
    pub fn array<T: Element>(&self) -> Result<ArrayD<T>, RuntimeError> {
        Ok(self.view()?.to_owned())
    }
}
