//! Programs written by hand, small enough to check by eye.
#![allow(dead_code)]

use lapidary_codegen::loops::{
    BinOp, Buf, BufferKind, Dim, Elem, Expr, LoopKernel, Mem, Schedule, Stmt, Sym, SymKind,
};
use lapidary_graph::op::LibraryCall;
use lapidary_graph::{
    DType, EntityMap, Graph, NodeId, Op, SymbolOrigin, TensorData, TensorType, ValueId,
};
use lapidary_lower::program::{
    ConstId, KernelDef, KernelId, LibraryStep, Operand, Prepared, Program, Step,
};
use lapidary_runtime::ffi::{ContextHead, LapTensor, LibraryFn};
use lapidary_runtime::{Tensor, TensorView, ffi};
use std::collections::HashMap;
use std::ffi::c_void;

pub struct Maker {
    pub program: Program,
}

impl Maker {
    pub fn new(name: &str) -> Self {
        Maker {
            program: Program {
                graph: Graph::new(name),
                steps: Vec::new(),
                kernels: EntityMap::new(),
                constants: EntityMap::new(),
                aliases: HashMap::new(),
                bodies: Vec::new(),
                variants: Vec::new(),
            },
        }
    }
    pub fn input_symbol(&mut self, name: &str, input: u32, axis: u32) -> Dim {
        let origin = SymbolOrigin::Input { input, axis };
        Dim::from(self.program.graph.add_symbol(name, origin))
    }
    pub fn f32(&self, dims: &[Dim]) -> TensorType {
        TensorType::new(DType::F32, dims.iter().cloned())
    }
    pub fn node(&mut self, name: &str, inputs: &[ValueId], ty: TensorType) -> (NodeId, ValueId) {
        let op = Op::Library(LibraryCall {
            name: name.into(),
            ints: vec![],
            floats: vec![],
            strings: vec![],
        });
        let inputs = inputs.iter().map(|v| Some(*v)).collect();
        let outputs = vec![(format!("{name}_out"), ty)];
        let n = self
            .program
            .graph
            .add_node(op, inputs, outputs, vec![format!("/{name}")]);
        (n, self.program.graph.nodes[n].outputs[0])
    }
    pub fn kernel(&mut self, loops: LoopKernel) -> KernelId {
        self.program.kernels.push(KernelDef {
            loops,
            schedule: Schedule::default(),
        })
    }
    pub fn prepared(&mut self, values: Vec<f32>) -> ConstId {
        self.program.constants.push(Prepared {
            identity: None,
            size: 4 * values.len(),
            make: Box::new(move |to| {
                for (to, v) in to.chunks_exact_mut(4).zip(&values) {
                    to.copy_from_slice(&v.to_le_bytes());
                }
            }),
        })
    }
    pub fn call(
        &mut self,
        kernel: KernelId,
        node: NodeId,
        buffers: Vec<Operand>,
        dims: Vec<Dim>,
        tasks: Dim,
    ) {
        let writes = vec![buffers.len() - 1];
        self.program.steps.push(Step::Kernel {
            kernel,
            buffers,
            writes,
            dims,
            cost: tasks.mul(&Dim::Const(8)),
            tasks,
            scratch_bytes: Dim::Const(0),
            flops: Dim::Const(0),
            nodes: vec![node],
        });
    }
    pub fn output(&mut self, name: &str, v: ValueId) {
        self.program.graph.outputs.push((name.into(), v));
    }
}

/// `y[t, j] = x[t, j] * w[j] + w[j]` for one row a task; parameter 0 is the number of columns.
pub fn scale_rows() -> LoopKernel {
    let mut k = LoopKernel::new("scale_rows");
    let cols = Dim::from(k.sym(SymKind::Param(0)));
    let task = Dim::from(k.sym(SymKind::Task));
    let j = k.sym(SymKind::Loop);
    let x = k.buffer("x", Mem::F32, BufferKind::Input(0));
    let w = k.buffer("w", Mem::F32, BufferKind::Input(1));
    let y = k.buffer("y", Mem::F32, BufferKind::Output(2));
    let at = task.mul(&cols).add(&Dim::from(j));
    let a = k.expr(Expr::Load {
        buf: x,
        at: at.clone(),
    });
    let b = k.expr(Expr::Load {
        buf: w,
        at: Dim::from(j),
    });
    let product = k.expr(Expr::Bin {
        op: BinOp::Mul,
        a,
        b,
    });
    let value = k.expr(Expr::Bin {
        op: BinOp::Add,
        a: product,
        b,
    });
    body(&mut k, j, cols, y, at, value);
    k
}

/// `y[i] = x[i] * x[i]` for `i` below parameter 0, in one task.
pub fn square() -> LoopKernel {
    let mut k = LoopKernel::new("square");
    let n = Dim::from(k.sym(SymKind::Param(0)));
    let i = k.sym(SymKind::Loop);
    let x = k.buffer("x", Mem::F32, BufferKind::Input(0));
    let y = k.buffer("y", Mem::F32, BufferKind::Output(1));
    let a = k.expr(Expr::Load {
        buf: x,
        at: Dim::from(i),
    });
    let value = k.expr(Expr::Bin {
        op: BinOp::Mul,
        a,
        b: a,
    });
    body(&mut k, i, n, y, Dim::from(i), value);
    k
}

fn body(
    k: &mut LoopKernel,
    var: Sym,
    to: Dim,
    buf: Buf,
    at: Dim,
    value: lapidary_codegen::loops::ExprId,
) {
    let _ = Elem::F32;
    k.body = vec![Stmt::For {
        var,
        from: Dim::Const(0),
        to,
        body: vec![Stmt::Store { buf, at, value }],
    }];
}

/// `x: f32[batch, 8]`; outputs: the rows scaled, the same flat (an alias), the squares, the input,
/// a constant, and the squares again.
pub fn every_kind_of_output() -> Program {
    let mut m = Maker::new("kinds");
    let batch = m.input_symbol("batch", 0, 0);
    let eight = Dim::Const(8);
    let all = batch.mul(&eight);
    let ty = m.f32(&[batch.clone(), eight.clone()]);
    let x = m.program.graph.add_input("x", ty.clone());
    let c = TensorData::from_f32(vec![2], &[10.0, 20.0]);
    let c = m.program.graph.add_const("c", c);
    let w = m.prepared((0..8).map(|i| i as f32).collect());
    let (n1, h) = m.node("scale", &[x], ty);
    let flat = m.f32(std::slice::from_ref(&all));
    let (_, alias) = m.node("flat", &[h], flat.clone());
    m.program.aliases.insert(alias, h);
    let (n2, y) = m.node("square", &[alias], flat);
    let (rows, squares) = (m.kernel(scale_rows()), m.kernel(square()));
    let v = Operand::Value;
    m.call(
        rows,
        n1,
        vec![v(x), Operand::Const(w), v(h)],
        vec![eight],
        batch,
    );
    m.call(squares, n2, vec![v(alias), v(y)], vec![all], Dim::Const(1));
    for (name, v) in [
        ("h", h),
        ("flat", alias),
        ("y", y),
        ("x", x),
        ("c", c),
        ("y2", y),
    ] {
        m.output(name, v);
    }
    m.program
}

/// Input and expected outputs of [`every_kind_of_output`].
pub fn kinds_example(batch: usize) -> (Tensor, Vec<Tensor>) {
    let x: Vec<f32> = (0..8 * batch).map(|i| (i % 17) as f32 - 8.0).collect();
    let h: Vec<f32> = x
        .iter()
        .enumerate()
        .map(|(i, x)| x * (i % 8) as f32 + (i % 8) as f32)
        .collect();
    let y: Vec<f32> = h.iter().map(|h| h * h).collect();
    let t = |shape: &[usize], v: &[f32]| Tensor::from_slice(shape, v).unwrap();
    let n = 8 * batch;
    (
        t(&[batch, 8], &x),
        vec![
            t(&[batch, 8], &h),
            t(&[n], &h),
            t(&[n], &y),
            t(&[batch, 8], &x),
            t(&[2], &[10.0, 20.0]),
            t(&[n], &y),
        ],
    )
}

/// `x: f32[n]`; the positive elements (a library step that decides how many), then their squares
/// in two parts of a buffer whose size is `2 * kept`; outputs both.
pub fn two_segments() -> Program {
    let mut m = Maker::new("segments");
    let n = m.input_symbol("n", 0, 0);
    let ty = m.f32(&[n]);
    let x = m.program.graph.add_input("x", ty);
    let origin = SymbolOrigin::Node {
        node: NodeId(0),
        output: 0,
        axis: 0,
    };
    let kept = Dim::from(m.program.graph.add_symbol("kept", origin));
    let ty = m.f32(std::slice::from_ref(&kept));
    let (n1, p) = m.node("test_positive", &[x], ty.clone());
    m.program.steps.push(Step::Library(LibraryStep {
        function: "test_positive".into(),
        ints: vec![7, 8],
        floats: vec![0.5],
        strings: vec!["abc".into()],
        inputs: vec![Some(Operand::Value(x)), None],
        outputs: vec![p],
        node: n1,
        bodies: Vec::new(),
    }));
    let (n2, y) = m.node("square", &[p], ty);
    let k = m.kernel(square());
    let v = Operand::Value;
    m.call(k, n2, vec![v(p), v(y)], vec![kept], Dim::Const(1));
    m.output("positive", p);
    m.output("squares", y);
    m.program
}

/// `s: string[n]` and `u: f32` of any rank to outputs as they are, and a constant of strings.
pub fn copies() -> Program {
    let mut m = Maker::new("copies");
    let n = m.input_symbol("n", 0, 0);
    let s = TensorType::new(DType::String, [n]);
    let s = m.program.graph.add_input("s", s);
    let u = TensorType::unranked(DType::F32);
    let u = m.program.graph.add_input("u", u);
    let c = TensorData {
        dtype: DType::String,
        dims: vec![2],
        bytes: Default::default(),
        strings: vec!["über".into(), "".into()],
    };
    let c = m.program.graph.add_const("c", c);
    for (name, v) in [("s1", s), ("u1", u), ("c1", c), ("u2", u)] {
        m.output(name, v);
    }
    m.program
}

/// Runs [`copies`] and compares.
pub fn check_copies(context: &mut lapidary_runtime::Context) {
    for (words, shape) in [
        (vec!["a", "", "xyz"], vec![2, 3]),
        (vec![], vec![]),
        (vec!["b"], vec![2, 0, 4]),
    ] {
        let strings = |w: &[&str]| {
            let w: Vec<String> = w.iter().map(|s| s.to_string()).collect();
            Tensor::from_strings(&[w.len()], w).unwrap()
        };
        let n: usize = shape.iter().product();
        let u: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let (s, u) = (strings(&words), Tensor::from_slice(&shape, &u).unwrap());
        let expected = vec![s.clone(), u.clone(), strings(&["über", ""]), u.clone()];
        assert_eq!(context.run(&[s.view(), u.view()]).unwrap(), expected);
    }
}

/// The library kernels of these tests.
pub fn kernels(name: &str) -> Option<LibraryFn> {
    (name == "lap_lib_test_positive").then_some(positive as LibraryFn)
}

/// Mirror of the attribute record.
#[repr(C)]
struct Attrs {
    ints: *const i64,
    floats: *const f64,
    strings: *const (*const u8, i64),
    n: [i32; 4],
}

unsafe extern "C" {
    fn lap_output_alloc(
        ctx: *mut ContextHead,
        out: *mut LapTensor,
        rank: i32,
        dims: *const i64,
        node: i32,
    ) -> i32;
}

unsafe extern "C" fn positive(
    ctx: *mut ContextHead,
    inputs: *const *const LapTensor,
    n_in: i32,
    outputs: *const *mut LapTensor,
    n_out: i32,
    attrs: *const c_void,
    node: i32,
) -> i32 {
    // SAFETY: as the ABI promises.
    unsafe {
        let attrs = &*attrs.cast::<Attrs>();
        assert_eq!(attrs.n, [2, 1, 1, 0]);
        assert_eq!((*attrs.ints.add(1), *attrs.floats), (8, 0.5));
        let (text, bytes) = *attrs.strings;
        assert_eq!(std::slice::from_raw_parts(text, bytes as usize), b"abc");
        assert_eq!((n_in, n_out), (2, 1));
        assert!((*inputs.add(1)).is_null());
        let x = &**inputs;
        assert_eq!((x.rank, x.dtype, x.strides[0]), (1, 1, 1));
        let data = std::slice::from_raw_parts(x.data.cast::<f32>(), x.dims[0] as usize);
        let kept: Vec<f32> = data.iter().copied().filter(|v| *v > 0.0).collect();
        let out = *outputs;
        assert!((*out).data.is_null());
        let code = lap_output_alloc(ctx, out, 1, &(kept.len() as i64), node);
        if code != 0 {
            return code;
        }
        std::ptr::copy_nonoverlapping(kept.as_ptr(), (*out).data.cast(), kept.len());
    }
    0
}

pub fn run(context: &mut lapidary_runtime::Context, x: &Tensor) -> Vec<Tensor> {
    context.run(&[x.view()]).unwrap()
}

#[allow(unused)]
fn _views(_: TensorView<'_>, _: ffi::Fault) {}
