//! Floats of 8, 6 and 4 bits as integer operations on lanes: no emitter knows them.
//!
//! A code is an `i32` lane, zero-extended. Decoding gives f32, which holds every number of every format. Encoding takes
//! f32 or f64 lanes and rounds once, to nearest even; out of range saturates (`lapidary_graph::minifloat` is the
//! same for the interpreter).

use crate::builder::Builder;
use lapidary_codegen::loops::*;
use lapidary_graph::DType;
use lapidary_graph::minifloat::{Format, Special};

/// Lanes of one width: floats, and integers for their bits.
struct Lanes<'b, 'g> {
    b: &'b mut Builder<'g>,
    float: Elem,
    int: Elem,
    /// Bits of the mantissa.
    mantissa: u32,
    bias: i64,
}

impl<'b, 'g> Lanes<'b, 'g> {
    fn of(b: &'b mut Builder<'g>, float: Elem) -> Self {
        let (int, mantissa, bias) = match float {
            Elem::F64 => (Elem::I64, 52, 1023),
            _ => (Elem::I32, 23, 127),
        };
        Lanes {
            b,
            float,
            int,
            mantissa,
            bias,
        }
    }
    fn constant(&mut self, v: i64) -> ExprId {
        let bits = match self.int {
            Elem::I64 => v as u64,
            _ => v as i32 as u32 as u64,
        };
        let elem = self.int;
        self.b.expr(Expr::Const { elem, bits })
    }
    /// 2^e.
    fn power(&mut self, e: i32) -> ExprId {
        let v = 2f64.powi(e);
        let (elem, bits) = match self.float {
            Elem::F64 => (Elem::F64, v.to_bits()),
            _ => (Elem::F32, u64::from((v as f32).to_bits())),
        };
        self.b.expr(Expr::Const { elem, bits })
    }
    fn bin(&mut self, op: BinOp, a: ExprId, b: ExprId) -> ExprId {
        self.b.expr(Expr::Bin { op, a, b })
    }
    fn with(&mut self, op: BinOp, a: ExprId, v: i64) -> ExprId {
        let v = self.constant(v);
        self.bin(op, a, v)
    }
    fn test(&mut self, op: CmpOp, a: ExprId, v: i64) -> ExprId {
        let v = self.constant(v);
        self.b.expr(Expr::Cmp { op, a, b: v })
    }
    fn select(&mut self, cond: ExprId, a: ExprId, b: ExprId) -> ExprId {
        self.b.expr(Expr::Select { cond, a, b })
    }
    fn bits(&mut self, a: ExprId, to: Elem) -> ExprId {
        self.b.expr(Expr::Bits { a, to })
    }
    fn convert(&mut self, a: ExprId, to: Elem) -> ExprId {
        self.b.expr(Expr::Convert { a, to })
    }
}

const NAN: i64 = 0x7fc0_0000;

/// f32 lanes from codes.
pub(crate) fn decode(b: &mut Builder, code: ExprId, t: DType) -> ExprId {
    let mut l = Lanes::of(b, Elem::F32);
    let Some(f) = Format::of(t) else {
        return decode_power(l, code);
    };
    let sign = i64::from(f.sign());
    let magnitude = l.with(BinOp::And, code, sign - 1);
    // Exponent and mantissa move up together; the exponent changes its bias.
    let moved = l.with(BinOp::Shl, magnitude, i64::from(23 - f.mantissa));
    let normal = l.with(BinOp::Add, moved, (127 - i64::from(f.bias)) << 23);
    // Below that the code counts steps of the least number.
    let step = l.power(1 - f.bias - f.mantissa as i32);
    let count = l.convert(magnitude, Elem::F32);
    let small = l.bin(BinOp::Mul, count, step);
    let small = l.bits(small, Elem::I32);
    let is_small = l.test(CmpOp::Lt, magnitude, 1 << f.mantissa);
    let mut u = l.select(is_small, small, normal);
    match f.special {
        Special::Ieee => {
            // The greatest exponent becomes that of f32: infinity and NaN keep their mantissa.
            let greatest = (1i64 << f.exponent) - 1;
            let lift = (255 - greatest - 127 + i64::from(f.bias)) << 23;
            let lifted = l.with(BinOp::Add, normal, lift);
            let special = l.test(CmpOp::Gt, magnitude, f.greatest().into());
            u = l.select(special, lifted, u);
        }
        Special::AllOnes => {
            let special = l.test(CmpOp::Gt, magnitude, f.greatest().into());
            let nan = l.constant(NAN);
            u = l.select(special, nan, u);
        }
        Special::NegativeZero | Special::Finite => {}
    }
    let signed = l.with(BinOp::And, code, sign);
    let place = 31 - (f.exponent + f.mantissa);
    let signed = l.with(BinOp::Shl, signed, i64::from(place));
    u = l.bin(BinOp::Or, u, signed);
    if f.special == Special::NegativeZero {
        let special = l.test(CmpOp::Eq, code, sign);
        let nan = l.constant(NAN);
        u = l.select(special, nan, u);
    }
    l.bits(u, Elem::F32)
}

/// The exponent of an f32; the least power is no normal number there.
fn decode_power(mut l: Lanes, code: ExprId) -> ExprId {
    let u = l.with(BinOp::Shl, code, 23);
    let (least, nan) = (l.constant(1 << 22), l.constant(NAN));
    let is_least = l.test(CmpOp::Eq, code, 0);
    let u = l.select(is_least, least, u);
    let is_nan = l.test(CmpOp::Eq, code, 255);
    let u = l.select(is_nan, nan, u);
    l.bits(u, Elem::F32)
}

/// Codes from float lanes of type `from`.
pub(crate) fn encode(b: &mut Builder, x: ExprId, from: Elem, t: DType) -> ExprId {
    let mut l = Lanes::of(b, from);
    let (int, float) = (l.int, l.float);
    let u = l.bits(x, int);
    let all = if int == Elem::I64 {
        i64::MAX
    } else {
        i64::from(i32::MAX)
    };
    let a = l.with(BinOp::And, u, all);
    let is_nan = l.b.expr(Expr::Cmp {
        op: CmpOp::Ne,
        a: x,
        b: x,
    });
    let Some(f) = Format::of(t) else {
        return encode_power(l, a, is_nan);
    };
    // Rounded where the mantissa ends: half a step less one, and one where the last bit is odd.
    let cut = l.mantissa - f.mantissa;
    let odd = l.with(BinOp::Shr, a, cut.into());
    let odd = l.with(BinOp::And, odd, 1);
    let rounded = l.with(BinOp::Add, a, (1 << (cut - 1)) - 1);
    let rounded = l.bin(BinOp::Add, rounded, odd);
    let moved = l.with(BinOp::Shr, rounded, cut.into());
    let rebias = l.bias - i64::from(f.bias);
    let normal = l.with(BinOp::Sub, moved, rebias << f.mantissa);
    // Below the least normal number: added to a number whose last bit is worth the step, which rounds.
    let anchor = l.power(l.mantissa as i32 + 1 - f.bias - f.mantissa as i32);
    let magnitude = l.bits(a, float);
    let sum = l.bin(BinOp::Add, magnitude, anchor);
    let (sum, none) = (l.bits(sum, int), l.bits(anchor, int));
    let small = l.bin(BinOp::Sub, sum, none);
    let is_small = l.test(CmpOp::Lt, a, (rebias + 1) << l.mantissa);
    let c = l.select(is_small, small, normal);
    let c = l.with(BinOp::Min, c, f.greatest().into());
    let place = if int == Elem::I64 { 63 } else { 31 } - (f.exponent + f.mantissa);
    let sign = l.with(BinOp::Shr, u, place.into());
    let sign = l.with(BinOp::And, sign, f.sign().into());
    let code = match f.special {
        Special::Ieee | Special::AllOnes => {
            let nan = l.constant(f.nan().into());
            let c = l.select(is_nan, nan, c);
            l.bin(BinOp::Or, c, sign)
        }
        Special::NegativeZero | Special::Finite => {
            let mut code = l.bin(BinOp::Or, c, sign);
            if f.special == Special::NegativeZero {
                let zero = l.test(CmpOp::Eq, c, 0);
                code = l.select(zero, c, code);
            }
            let nan = l.constant(f.nan().into());
            l.select(is_nan, nan, code)
        }
    };
    to_i32(l, code)
}

/// Any bit of the mantissa counts the exponent up. In f32 the least power, 2^-127, stands below the normal numbers.
fn encode_power(mut l: Lanes, a: ExprId, is_nan: ExprId) -> ExprId {
    let up = l.with(BinOp::Add, a, (1 << l.mantissa) - 1);
    let up = l.with(BinOp::Shr, up, l.mantissa.into());
    let mut code = l.with(BinOp::Sub, up, l.bias - 127);
    if l.int == Elem::I32 {
        let tiny = l.test(CmpOp::Le, a, 1 << 22);
        let zero = l.constant(0);
        code = l.select(tiny, zero, code);
    } else {
        code = l.with(BinOp::Max, code, 0);
    }
    let code = l.with(BinOp::Min, code, 254);
    let nan = l.constant(255);
    let code = l.select(is_nan, nan, code);
    to_i32(l, code)
}

fn to_i32(mut l: Lanes, code: ExprId) -> ExprId {
    match l.int {
        Elem::I64 => l.convert(code, Elem::I32),
        _ => code,
    }
}
