//! The assembler: instructions to bytes, labels, and the constant pool.
//!
//! It knows no kernels. Operands are register numbers with a width; the first encoding error is kept
//! and reported by [`Asm::finish`], so that callers need not check every instruction. Backward branches
//! are short where they fit, forward ones are long. Constants are addressed relative to the
//! instruction pointer and stand behind the code, aligned to 64 bytes, the widest first.

use super::EmitError;
use super::encode::{Form, encode};
use super::forms as f;
use super::table::Op;
use std::fmt;

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

/// An operand of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arg {
    V(u8, Width),
    K(u8),
    /// The low byte of a general register.
    R8(u8),
    R16(u8),
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
    /// Register and memory; register with imm8; register with imm32.
    fn forms(self) -> [&'static Form; 3] {
        match self {
            Alu::Add => [&f::ADD_R64_RM64, &f::ADD_RM64_IMM8, &f::ADD_RM64_IMM32],
            Alu::Or => [&f::OR_R64_RM64, &f::OR_RM64_IMM8, &f::OR_RM64_IMM32],
            Alu::And => [&f::AND_R64_RM64, &f::AND_RM64_IMM8, &f::AND_RM64_IMM32],
            Alu::Sub => [&f::SUB_R64_RM64, &f::SUB_RM64_IMM8, &f::SUB_RM64_IMM32],
            Alu::Xor => [&f::XOR_R64_RM64, &f::XOR_RM64_IMM8, &f::XOR_RM64_IMM32],
            Alu::Cmp => [&f::CMP_R64_RM64, &f::CMP_RM64_IMM8, &f::CMP_RM64_IMM32],
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
    bytes: Vec<u8>,
    labels: Vec<Option<usize>>,
    /// Offset of a 32-bit branch distance, and where it goes.
    branches: Vec<(usize, Label)>,
    pool: Vec<Vec<u8>>,
    /// Offset of a 32-bit displacement, end of its instruction, and the constant.
    addresses: Vec<(usize, usize, Constant)>,
    error: Option<EmitError>,
}

impl Asm {
    pub fn new() -> Self {
        Asm {
            bytes: Vec::new(),
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
            *place = Some(self.bytes.len());
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
        let mut missing = self.bytes.len().next_multiple_of(to) - self.bytes.len();
        while missing > 0 {
            let n = missing.min(NOPS.len());
            self.bytes.extend_from_slice(NOPS[n - 1]);
            missing -= n;
        }
    }

    /// Encodes one instruction.
    pub fn raw(&mut self, form: &Form, args: &[Arg], imm: Option<u8>, mask: Option<(u8, bool)>) {
        self.put(form, args, imm.map(i64::from), mask);
    }

    fn put(&mut self, form: &Form, args: &[Arg], imm: Option<i64>, mask: Option<(u8, bool)>) {
        match encode(form, args, imm, mask, &mut self.bytes) {
            Ok(None) => {}
            Ok(Some((at, constant))) => self.addresses.push((at, self.bytes.len(), constant)),
            Err(why) => self.refuse(form, why),
        }
    }

    fn refuse(&mut self, what: &dyn fmt::Display, why: &str) {
        self.error.get_or_insert_with(|| EmitError::Encode {
            code: what.to_string(),
            why: why.to_owned(),
        });
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
        let needs_evex = mask.is_some()
            || args.iter().any(|a| match *a {
                Arg::V(r, _) => r > 15,
                Arg::M(m) => {
                    m.broadcast || matches!(m.index, Some((Index::Vec(r, _), _)) if r > 15)
                }
                _ => false,
            });
        match op.vex(w).filter(|_| !needs_evex).or(op.evex(w)) {
            Some(form) => self.raw(form, args, imm, mask),
            None => self.refuse(
                op,
                "there is no form of this width that reaches its operands",
            ),
        }
    }

    pub fn mov(&mut self, dst: u8, src: u8) {
        if dst != src {
            self.raw(
                &f::MOV_R64_RM64,
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
                &f::XOR_R32_RM32,
                &[Arg::R32(dst), Arg::R32(dst)],
                None,
                None,
            );
        } else if u32::try_from(v).is_ok() {
            self.put(&f::MOV_R32_IMM32, &[Arg::R32(dst)], Some(v), None);
        } else if i32::try_from(v).is_ok() {
            self.put(&f::MOV_RM64_IMM32, &[Arg::R64(dst)], Some(v), None);
        } else {
            self.put(&f::MOV_R64_IMM64, &[Arg::R64(dst)], Some(v), None);
        }
    }
    pub fn load(&mut self, dst: u8, m: Mem) {
        self.raw(&f::MOV_R64_RM64, &[Arg::R64(dst), Arg::M(m)], None, None);
    }
    pub fn store(&mut self, m: Mem, src: u8) {
        self.raw(&f::MOV_RM64_R64, &[Arg::M(m), Arg::R64(src)], None, None);
    }
    /// Stores the low 1, 2, 4 or 8 bytes of a register.
    pub fn store_part(&mut self, bytes: u32, m: Mem, src: u8) {
        let (form, src) = match bytes {
            1 => (&f::MOV_RM8_R8, Arg::R8(src)),
            2 => (&f::MOV_RM16_R16, Arg::R16(src)),
            4 => (&f::MOV_RM32_R32, Arg::R32(src)),
            _ => (&f::MOV_RM64_R64, Arg::R64(src)),
        };
        self.raw(form, &[Arg::M(m), src], None, None);
    }
    pub fn lea(&mut self, dst: u8, m: Mem) {
        self.raw(&f::LEA_R64_M, &[Arg::R64(dst), Arg::M(m)], None, None);
    }
    /// `src` is a register or memory.
    pub fn alu(&mut self, op: Alu, dst: u8, src: Arg) {
        self.raw(op.forms()[0], &[Arg::R64(dst), src], None, None);
    }
    pub fn alu_imm(&mut self, op: Alu, dst: u8, imm: i32) {
        if op == Alu::Cmp && imm == 0 {
            self.raw(
                &f::TEST_RM64_R64,
                &[Arg::R64(dst), Arg::R64(dst)],
                None,
                None,
            );
            return;
        }
        let [_, short, long] = op.forms();
        let form = if i8::try_from(imm).is_ok() {
            short
        } else {
            long
        };
        self.put(form, &[Arg::R64(dst)], Some(imm.into()), None);
    }
    /// With an immediate and an operand in memory, of 8, 32 or 64 bits.
    pub fn mem_imm(&mut self, form: &Form, m: Mem, imm: i32) {
        self.put(form, &[Arg::M(m)], Some(imm.into()), None);
    }
    pub fn imul(&mut self, dst: u8, src: Arg) {
        self.raw(&f::IMUL_R64_RM64, &[Arg::R64(dst), src], None, None);
    }
    pub fn imul_imm(&mut self, dst: u8, src: u8, imm: i32) {
        let form = if i8::try_from(imm).is_ok() {
            &f::IMUL_R64_RM64_IMM8
        } else {
            &f::IMUL_R64_RM64_IMM32
        };
        self.put(
            form,
            &[Arg::R64(dst), Arg::R64(src)],
            Some(imm.into()),
            None,
        );
    }
    pub fn shift(&mut self, op: Shift, dst: u8, by: u8) {
        let form = match op {
            Shift::Shl => &f::SHL_RM64_IMM8,
            Shift::Sar => &f::SAR_RM64_IMM8,
            Shift::Shr => &f::SHR_RM64_IMM8,
        };
        self.raw(form, &[Arg::R64(dst)], Some(by), None);
    }
    pub fn neg(&mut self, dst: u8) {
        self.raw(&f::NEG_RM64, &[Arg::R64(dst)], None, None);
    }
    /// `cmovg` or `cmovl`.
    pub fn cmov(&mut self, greater: bool, dst: u8, src: u8) {
        let form = if greater {
            &f::CMOVG_R64_RM64
        } else {
            &f::CMOVL_R64_RM64
        };
        self.raw(form, &[Arg::R64(dst), Arg::R64(src)], None, None);
    }
    pub fn plain(&mut self, form: &Form) {
        self.put(form, &[], None, None);
    }

    pub fn jcc(&mut self, cond: Cond, to: Label) {
        self.branch(&[0x70 | cond as u8], &[0x0f, 0x80 | cond as u8], to);
    }
    pub fn jmp(&mut self, to: Label) {
        self.branch(&[0xeb], &[0xe9], to);
    }
    fn branch(&mut self, short: &[u8], long: &[u8], to: Label) {
        if let Some(&Some(target)) = self.labels.get(to.0) {
            let distance = target as i64 - (self.bytes.len() + short.len() + 1) as i64;
            if let Ok(d) = i8::try_from(distance) {
                self.bytes.extend_from_slice(short);
                self.bytes.push(d as u8);
                return;
            }
        }
        self.bytes.extend_from_slice(long);
        self.branches.push((self.bytes.len(), to));
        self.bytes.extend_from_slice(&[0; 4]);
    }

    /// The bytes, with branches and constants settled.
    pub fn finish(self) -> Result<Vec<u8>, EmitError> {
        if let Some(e) = self.error {
            return Err(e);
        }
        let mut bytes = self.bytes;
        let code = bytes.len();
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
            let target = self.labels.get(to.0).copied().flatten().unwrap_or(code);
            patch(at, target as i64 - (at as i64 + 4))?;
        }
        if self.pool.is_empty() {
            return Ok(bytes);
        }
        let mut order: Vec<usize> = (0..self.pool.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.pool[i].len()));
        let mut offsets = vec![0; self.pool.len()];
        let mut end = code.next_multiple_of(64);
        for &i in &order {
            offsets[i] = end;
            end += self.pool[i].len();
        }
        for &(at, next, c) in &self.addresses {
            patch(at, offsets[c.0] as i64 - next as i64)?;
        }
        bytes.resize(code.next_multiple_of(64), PADDING);
        for &i in &order {
            bytes.extend_from_slice(&self.pool[i]);
        }
        Ok(bytes)
    }
}
