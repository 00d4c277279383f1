//! The assembler: instructions to bytes, labels, and the constant pool.
//!
//! A thin layer over iced's encoder that knows no kernels. Operands are register numbers with a
//! width; the first encoding error is kept and reported by [`Asm::finish`], so that callers need
//! not check every instruction. Backward branches are short where they fit, forward ones are long.
//! Constants are addressed relative to the instruction pointer and stand behind the code, aligned
//! to 64 bytes, the widest first.

use super::EmitError;
use super::table::Op;
use iced_x86::{Code, Encoder, Instruction, OpKind, Register};

/// What stands between code and constants: a breakpoint, should it ever be run.
pub(super) const PADDING: u8 = 0xcc;

/// Width of a vector operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Width {
    X,
    Y,
    Z,
}

/// A place in the constant pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Constant(usize);

/// The base of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Base {
    Gpr(u8),
    Pool(Constant),
}

/// The index of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Index {
    Gpr(u8),
    Vec(u8, Width),
}

/// A memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mem {
    pub base: Base,
    pub index: Option<(Index, u8)>,
    pub disp: i32,
    /// One element, broadcast to every lane (EVEX).
    pub broadcast: bool,
}

impl Mem {
    pub fn at(base: u8, disp: i32) -> Self {
        Mem {
            base: Base::Gpr(base),
            index: None,
            disp,
            broadcast: false,
        }
    }
    /// The same place, some bytes on.
    pub fn plus(self, bytes: i32) -> Self {
        Mem {
            disp: self.disp.wrapping_add(bytes),
            ..self
        }
    }
}

/// An operand of a vector instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arg {
    V(u8, Width),
    K(u8),
    R32(u8),
    R64(u8),
    M(Mem),
}

/// A branch target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// Numbers of general registers.
pub(super) mod gpr {
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
    pub const R8: u8 = 8;
    pub const R9: u8 = 9;
    pub const R10: u8 = 10;
    pub const R11: u8 = 11;
    pub const R12: u8 = 12;
    pub const R13: u8 = 13;
    pub const R14: u8 = 14;
    pub const R15: u8 = 15;
}

/// Condition codes, by their number in the encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Cond {
    E = 4,
    Ne = 5,
    Ns = 9,
    L = 12,
    Ge = 13,
    Le = 14,
    G = 15,
}

impl Cond {
    pub fn not(self) -> Self {
        match self {
            Cond::E => Cond::Ne,
            Cond::Ne => Cond::E,
            Cond::L => Cond::Ge,
            Cond::Ge => Cond::L,
            Cond::Le => Cond::G,
            Cond::G => Cond::Le,
            Cond::Ns => Cond::Ns,
        }
    }
}

/// Two-operand integer instructions that share their encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alu {
    Add,
    Or,
    And,
    Sub,
    Xor,
    Cmp,
}

impl Alu {
    /// Codes: register and memory; register with imm8; register with imm32.
    fn codes(self) -> [Code; 3] {
        match self {
            Alu::Add => [
                Code::Add_r64_rm64,
                Code::Add_rm64_imm8,
                Code::Add_rm64_imm32,
            ],
            Alu::Or => [Code::Or_r64_rm64, Code::Or_rm64_imm8, Code::Or_rm64_imm32],
            Alu::And => [
                Code::And_r64_rm64,
                Code::And_rm64_imm8,
                Code::And_rm64_imm32,
            ],
            Alu::Sub => [
                Code::Sub_r64_rm64,
                Code::Sub_rm64_imm8,
                Code::Sub_rm64_imm32,
            ],
            Alu::Xor => [
                Code::Xor_r64_rm64,
                Code::Xor_rm64_imm8,
                Code::Xor_rm64_imm32,
            ],
            Alu::Cmp => [
                Code::Cmp_r64_rm64,
                Code::Cmp_rm64_imm8,
                Code::Cmp_rm64_imm32,
            ],
        }
    }
}

/// Shifts by an immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shift {
    Shl,
    Sar,
    /// Logical.
    Shr,
}

pub(super) struct Asm {
    encoder: Encoder,
    pos: usize,
    labels: Vec<Option<usize>>,
    /// Offset of a 32-bit branch distance, and where it goes.
    branches: Vec<(usize, Label)>,
    pool: Vec<Vec<u8>>,
    /// Offset of a 32-bit displacement, end of its instruction, and the constant.
    addresses: Vec<(usize, usize, Constant)>,
    error: Option<EmitError>,
}

fn r64(n: u8) -> Register {
    Register::RAX + u32::from(n & 15)
}
fn r32(n: u8) -> Register {
    Register::EAX + u32::from(n & 15)
}
/// The low byte of a register.
fn r8(n: u8) -> Register {
    match n & 15 {
        n @ 0..4 => Register::AL + u32::from(n),
        n @ 4..8 => Register::SPL + u32::from(n - 4),
        n => Register::R8L + u32::from(n - 8),
    }
}
fn vec(n: u8, w: Width) -> Register {
    let first = match w {
        Width::X => Register::XMM0,
        Width::Y => Register::YMM0,
        Width::Z => Register::ZMM0,
    };
    first + u32::from(n & 31)
}

impl Asm {
    pub fn new() -> Self {
        Asm {
            encoder: Encoder::new(64),
            pos: 0,
            labels: Vec::new(),
            branches: Vec::new(),
            pool: Vec::new(),
            addresses: Vec::new(),
            error: None,
        }
    }

    /// A place in the pool with these bytes; equal constants share one.
    pub fn constant(&mut self, bytes: &[u8]) -> Constant {
        if let Some(i) = self.pool.iter().position(|c| c == bytes) {
            return Constant(i);
        }
        self.pool.push(bytes.to_vec());
        Constant(self.pool.len() - 1)
    }

    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub fn bind(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.pos);
        }
    }

    /// Fills up to a multiple of `to` bytes with no-operations.
    pub fn align(&mut self, to: usize) {
        const NOPS: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ];
        let mut missing = self.pos.next_multiple_of(to) - self.pos;
        while missing > 0 {
            let n = missing.min(NOPS.len());
            self.bytes(NOPS[n - 1]);
            missing -= n;
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.encoder.write_u8(b);
        }
        self.pos += bytes.len();
    }

    /// Encodes one instruction.
    pub fn raw(&mut self, code: Code, args: &[Arg], imm: Option<u8>, mask: Option<(u8, bool)>) {
        let mut i = Instruction::default();
        i.set_code(code);
        let mut constant = None;
        for (n, &arg) in args.iter().enumerate() {
            let n = n as u32;
            match arg {
                Arg::V(r, w) => i.set_op_register(n, vec(r, w)),
                Arg::K(k) => i.set_op_register(n, Register::K0 + u32::from(k & 7)),
                Arg::R32(r) => i.set_op_register(n, r32(r)),
                Arg::R64(r) => i.set_op_register(n, r64(r)),
                Arg::M(m) => {
                    i.set_op_kind(n, OpKind::Memory);
                    constant = self.set_memory(&mut i, m);
                }
            }
        }
        if let Some(imm) = imm {
            i.set_op_kind(args.len() as u32, OpKind::Immediate8);
            i.set_immediate8(imm);
        }
        if let Some((k, zero)) = mask {
            i.set_op_mask(Register::K0 + u32::from(k & 7));
            i.set_zeroing_masking(zero);
        }
        self.encode(&i, constant);
    }

    fn set_memory(&mut self, i: &mut Instruction, m: Mem) -> Option<Constant> {
        i.set_is_broadcast(m.broadcast);
        match m.base {
            Base::Gpr(base) => {
                i.set_memory_base(r64(base));
                if let Some((index, scale)) = m.index {
                    i.set_memory_index(match index {
                        Index::Gpr(r) => r64(r),
                        Index::Vec(r, w) => vec(r, w),
                    });
                    i.set_memory_index_scale(u32::from(scale));
                }
                i.set_memory_displacement64(i64::from(m.disp) as u64);
                i.set_memory_displ_size(u32::from(m.disp != 0));
                None
            }
            Base::Pool(constant) => {
                i.set_memory_base(Register::RIP);
                i.set_memory_displ_size(8);
                i.set_memory_displacement64(self.pos as u64);
                Some(constant)
            }
        }
    }

    fn encode(&mut self, i: &Instruction, constant: Option<Constant>) {
        match self.encoder.encode(i, self.pos as u64) {
            Ok(len) => {
                if let Some(c) = constant {
                    let at = self.encoder.get_constant_offsets().displacement_offset();
                    self.addresses.push((self.pos + at, self.pos + len, c));
                }
                self.pos += len;
            }
            Err(e) => {
                self.error.get_or_insert(EmitError::Encode {
                    code: format!("{:?}", i.code()),
                    why: e.to_string(),
                });
            }
        }
    }

    /// A vector instruction: the shortest form that can say it.
    pub fn vop(
        &mut self,
        op: &Op,
        w: Width,
        args: &[Arg],
        imm: Option<u8>,
        mask: Option<(u8, bool)>,
    ) {
        let vex = match w {
            Width::X => op[0],
            Width::Y => op[1],
            Width::Z => Code::INVALID,
        };
        let needs_evex = mask.is_some()
            || args.iter().any(|a| match *a {
                Arg::V(r, _) => r > 15,
                Arg::M(m) => {
                    m.broadcast || matches!(m.index, Some((Index::Vec(r, _), _)) if r > 15)
                }
                _ => false,
            });
        let code = if vex != Code::INVALID && !needs_evex {
            vex
        } else {
            op[2 + w as usize]
        };
        self.raw(code, args, imm, mask);
    }

    fn made(&mut self, i: Result<Instruction, iced_x86::IcedError>) {
        match i {
            Ok(i) => self.encode(&i, None),
            Err(e) => {
                self.error.get_or_insert(EmitError::Encode {
                    code: String::new(),
                    why: e.to_string(),
                });
            }
        }
    }

    pub fn mov(&mut self, dst: u8, src: u8) {
        if dst != src {
            self.raw(
                Code::Mov_r64_rm64,
                &[Arg::R64(dst), Arg::R64(src)],
                None,
                None,
            );
        }
    }
    /// Sets a register; changes the flags.
    pub fn set(&mut self, dst: u8, v: i64) {
        if v == 0 {
            self.raw(
                Code::Xor_r32_rm32,
                &[Arg::R32(dst), Arg::R32(dst)],
                None,
                None,
            );
        } else if let Ok(v) = u32::try_from(v) {
            self.made(Instruction::with2(Code::Mov_r32_imm32, r32(dst), v));
        } else if let Ok(v) = i32::try_from(v) {
            self.made(Instruction::with2(Code::Mov_rm64_imm32, r64(dst), v));
        } else {
            self.made(Instruction::with2(Code::Mov_r64_imm64, r64(dst), v));
        }
    }
    pub fn load(&mut self, dst: u8, m: Mem) {
        self.raw(Code::Mov_r64_rm64, &[Arg::R64(dst), Arg::M(m)], None, None);
    }
    pub fn store(&mut self, m: Mem, src: u8) {
        self.raw(Code::Mov_rm64_r64, &[Arg::M(m), Arg::R64(src)], None, None);
    }
    /// Stores the low bytes of a register, as many as the code says.
    pub fn store_part(&mut self, code: Code, m: Mem, src: u8) {
        let register = match code {
            Code::Mov_rm8_r8 => r8(src),
            Code::Mov_rm16_r16 => Register::AX + u32::from(src & 15),
            Code::Mov_rm32_r32 => r32(src),
            _ => r64(src),
        };
        let mut i = Instruction::default();
        i.set_code(code);
        i.set_op_kind(0, OpKind::Memory);
        self.set_memory(&mut i, m);
        i.set_op_register(1, register);
        self.encode(&i, None);
    }
    pub fn lea(&mut self, dst: u8, m: Mem) {
        self.raw(Code::Lea_r64_m, &[Arg::R64(dst), Arg::M(m)], None, None);
    }
    /// `src` is a register or memory.
    pub fn alu(&mut self, op: Alu, dst: u8, src: Arg) {
        self.raw(op.codes()[0], &[Arg::R64(dst), src], None, None);
    }
    pub fn alu_imm(&mut self, op: Alu, dst: u8, imm: i32) {
        if op == Alu::Cmp && imm == 0 {
            self.raw(
                Code::Test_rm64_r64,
                &[Arg::R64(dst), Arg::R64(dst)],
                None,
                None,
            );
            return;
        }
        let [_, short, long] = op.codes();
        let code = if i8::try_from(imm).is_ok() {
            short
        } else {
            long
        };
        self.made(Instruction::with2(code, r64(dst), imm));
    }
    /// With an immediate and an operand in memory, of 32 or 64 bits.
    pub fn mem_imm(&mut self, code: Code, m: Mem, imm: i32) {
        let mut i = Instruction::default();
        i.set_code(code);
        i.set_op_kind(0, OpKind::Memory);
        self.set_memory(&mut i, m);
        let kind = match code {
            Code::Cmp_rm64_imm8 | Code::Add_rm64_imm8 => OpKind::Immediate8to64,
            Code::Cmp_rm32_imm8 => OpKind::Immediate8to32,
            Code::Mov_rm32_imm32 => OpKind::Immediate32,
            Code::Mov_rm64_imm32 | Code::Cmp_rm64_imm32 | Code::Add_rm64_imm32 => {
                OpKind::Immediate32to64
            }
            _ => OpKind::Immediate8,
        };
        i.set_op_kind(1, kind);
        match kind {
            OpKind::Immediate8to64 => i.set_immediate8to64(i64::from(imm)),
            OpKind::Immediate8to32 => i.set_immediate8to32(imm),
            OpKind::Immediate32to64 => i.set_immediate32to64(i64::from(imm)),
            OpKind::Immediate32 => i.set_immediate32(imm as u32),
            _ => i.set_immediate8(imm as u8),
        }
        self.encode(&i, None);
    }
    pub fn imul(&mut self, dst: u8, src: Arg) {
        self.raw(Code::Imul_r64_rm64, &[Arg::R64(dst), src], None, None);
    }
    pub fn imul_imm(&mut self, dst: u8, src: u8, imm: i32) {
        let code = if i8::try_from(imm).is_ok() {
            Code::Imul_r64_rm64_imm8
        } else {
            Code::Imul_r64_rm64_imm32
        };
        self.made(Instruction::with3(code, r64(dst), r64(src), imm));
    }
    pub fn shift(&mut self, op: Shift, dst: u8, by: u8) {
        let code = match op {
            Shift::Shl => Code::Shl_rm64_imm8,
            Shift::Sar => Code::Sar_rm64_imm8,
            Shift::Shr => Code::Shr_rm64_imm8,
        };
        self.raw(code, &[Arg::R64(dst)], Some(by), None);
    }
    pub fn neg(&mut self, dst: u8) {
        self.raw(Code::Neg_rm64, &[Arg::R64(dst)], None, None);
    }
    /// `cmovg` or `cmovl`.
    pub fn cmov(&mut self, greater: bool, dst: u8, src: u8) {
        let code = if greater {
            Code::Cmovg_r64_rm64
        } else {
            Code::Cmovl_r64_rm64
        };
        self.raw(code, &[Arg::R64(dst), Arg::R64(src)], None, None);
    }
    pub fn plain(&mut self, code: Code) {
        self.made(Ok(Instruction::with(code)));
    }

    pub fn jcc(&mut self, cond: Cond, to: Label) {
        self.branch(&[0x70 | cond as u8], &[0x0f, 0x80 | cond as u8], to);
    }
    pub fn jmp(&mut self, to: Label) {
        self.branch(&[0xeb], &[0xe9], to);
    }
    fn branch(&mut self, short: &[u8], long: &[u8], to: Label) {
        if let Some(&Some(target)) = self.labels.get(to.0) {
            let distance = target as i64 - (self.pos + short.len() + 1) as i64;
            if let Ok(d) = i8::try_from(distance) {
                self.bytes(short);
                self.bytes(&[d as u8]);
                return;
            }
        }
        self.bytes(long);
        self.branches.push((self.pos, to));
        self.bytes(&[0; 4]);
    }

    /// The bytes, with branches and constants settled.
    pub fn finish(mut self) -> Result<Vec<u8>, EmitError> {
        if let Some(e) = self.error {
            return Err(e);
        }
        let mut bytes = self.encoder.take_buffer();
        let mut patch = |at: usize, value: i64| -> Result<(), EmitError> {
            let value = i32::try_from(value).map_err(|_| EmitError::TooLarge)?;
            match bytes.get_mut(at..at + 4) {
                Some(place) => {
                    place.copy_from_slice(&value.to_le_bytes());
                    Ok(())
                }
                None => Err(EmitError::TooLarge),
            }
        };
        for &(at, to) in &self.branches {
            let target = self.labels.get(to.0).copied().flatten().unwrap_or(self.pos);
            patch(at, target as i64 - (at as i64 + 4))?;
        }
        if self.pool.is_empty() {
            return Ok(bytes);
        }
        let mut order: Vec<usize> = (0..self.pool.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.pool[i].len()));
        let mut offsets = vec![0; self.pool.len()];
        let mut end = self.pos.next_multiple_of(64);
        for &i in &order {
            offsets[i] = end;
            end += self.pool[i].len();
        }
        for &(at, next, c) in &self.addresses {
            patch(at, offsets[c.0] as i64 - next as i64)?;
        }
        bytes.resize(self.pos.next_multiple_of(64), PADDING);
        for &i in &order {
            bytes.extend_from_slice(&self.pool[i]);
        }
        Ok(bytes)
    }
}
