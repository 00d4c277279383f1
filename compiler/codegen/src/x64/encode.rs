//! One instruction to bytes.
//!
//! A [`Form`] is one line of the tables in volume 2 of Intel's manual: prefix, map and opcode, the
//! field of the encoding that holds each operand, and what each operand may be. [`encode`] writes a
//! form with its operands, in the shortest way that the form has: VEX of two bytes where it can say
//! all, no displacement or one of 8 bits (in EVEX, of 8 bits times the size of what is in memory).
//! What a form cannot say is refused, with the reason as text; nothing is written then.
//!
//! Which forms there are stands in `table` and `forms`.

use super::asm::{Arg, Base, Constant, Index, Mem, Width};
use std::fmt;

/// Which kind of prefix a form has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Space {
    Legacy,
    Vex,
    Evex,
}

/// A mandatory prefix, by its number in VEX and EVEX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Prefix {
    NP = 0,
    P66 = 1,
    PF3 = 2,
    PF2 = 3,
}

/// An opcode map, by its number in VEX and EVEX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Map {
    OneByte = 0,
    M0F = 1,
    M0F38 = 2,
    M0F3A = 3,
}

/// A place in an encoding that holds an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    /// `ModRM.reg`.
    Reg,
    /// `ModRM.rm`: a register or memory.
    Rm,
    Vvvv,
    /// The high half of the immediate.
    Is4,
    /// The low bits of the opcode.
    Opcode,
}

/// The fields of the operands in their order: `R` is reg, `M` is rm, `V` is vvvv. Without `R`, reg
/// extends the opcode (the manual's `/digit`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    None,
    /// A register in the opcode.
    O,
    M,
    Rm,
    Mr,
    Vm,
    Rvm,
    Rmv,
    Mvr,
    /// The last register in the immediate.
    RvmIs4,
}

impl Order {
    pub const fn fields(self) -> &'static [Field] {
        use Field::*;
        match self {
            Order::None => &[],
            Order::O => &[Opcode],
            Order::M => &[Rm],
            Order::Rm => &[Reg, Rm],
            Order::Mr => &[Rm, Reg],
            Order::Vm => &[Vvvv, Rm],
            Order::Rvm => &[Reg, Vvvv, Rm],
            Order::Rmv => &[Reg, Rm, Vvvv],
            Order::Mvr => &[Rm, Vvvv, Reg],
            Order::RvmIs4 => &[Reg, Vvvv, Rm, Is4],
        }
    }
}

/// A kind of register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    X,
    Y,
    Z,
    K,
    R8,
    R16,
    R32,
    R64,
}

/// What an operand may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operand {
    None,
    Register(Class),
    Memory,
    Either(Class),
    /// Memory at as many addresses as there are indices in a vector; always the second operand.
    Gather(Width),
}

/// What a form takes for a mask (EVEX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Masking {
    Never,
    /// Lanes that are off keep what they were.
    Merge,
    /// The same, or they become zero.
    Zero,
    /// There must be one.
    Always,
}

/// An immediate, and how the processor extends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Immediate {
    None,
    /// Eight bits, as signed or unsigned as one likes.
    Byte,
    /// Eight bits that are extended by their sign.
    Signed8,
    /// As many as the operand has.
    Any32,
    /// Extended by their sign.
    Signed32,
    Any64,
}

/// One form of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub space: Space,
    pub prefix: Prefix,
    pub map: Map,
    pub opcode: u8,
    pub w: bool,
    /// `L` or `L'L`: 0 for 128 bits, 1 for 256, 2 for 512.
    pub length: u8,
    pub order: Order,
    /// What stands in `ModRM.reg` if no operand does.
    pub digit: u8,
    pub operands: [Operand; 4],
    pub immediate: Immediate,
    pub masking: Masking,
    /// Bytes of the operand in memory, a power of two: the unit of displacements of 8 bits in EVEX.
    pub memory: u8,
    /// Bytes of an element that can be broadcast from memory, or 0.
    pub broadcast: u8,
}

/// In the notation of the manual.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let prefix = ["", "66", "F3", "F2"][self.prefix as usize];
        let map = ["", "0F", "0F38", "0F3A"][self.map as usize];
        match self.space {
            Space::Legacy => {
                let w = if self.w { "REX.W" } else { "" };
                for part in [prefix, w, map] {
                    if !part.is_empty() {
                        write!(f, "{part} ")?;
                    }
                }
            }
            Space::Vex | Space::Evex => {
                let space = if self.space == Space::Vex {
                    "VEX"
                } else {
                    "EVEX"
                };
                let bits = 128u32 << self.length;
                let prefix = if prefix.is_empty() { "NP" } else { prefix };
                write!(f, "{space}.{bits}.{prefix}.{map}.W{} ", u8::from(self.w))?;
            }
        }
        write!(f, "{:02X}", self.opcode)?;
        match self.order {
            Order::None => Ok(()),
            Order::O => write!(f, "+r"),
            Order::M | Order::Vm => write!(f, " /{}", self.digit),
            _ => write!(f, " /r"),
        }
    }
}

/// Why something cannot be encoded.
pub(super) type Refusal = &'static str;

/// A constant's address in the bytes: the offset of its 32 bits.
pub(super) type Address = (usize, Constant);

/// The bytes of one instruction, which are fifteen at most.
struct Bytes {
    bytes: [u8; 16],
    len: usize,
}

impl Bytes {
    fn push(&mut self, byte: u8) {
        self.bytes[self.len & 15] = byte;
        self.len += 1;
    }
    fn extend(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.push(b);
        }
    }
}

/// The operands by their fields.
#[derive(Default)]
struct Fields<'a> {
    reg: u8,
    rm: u8,
    vvvv: u8,
    is4: u8,
    opcode: u8,
    memory: Option<&'a Mem>,
    /// A low byte that only a REX prefix tells from a high one.
    rex: bool,
}

/// Writes an instruction behind `out`. If an operand is a constant, its address stays zero.
pub(super) fn encode(
    form: &Form,
    args: &[Arg],
    immediate: Option<i64>,
    mask: Option<(u8, bool)>,
    out: &mut Vec<u8>,
) -> Result<Option<Address>, Refusal> {
    let fields = fields(form, args)?;
    let place = match fields.memory {
        Some(m) => place(form, m)?,
        None => Place::register(fields.rm),
    };
    if matches!(form.operands[1], Operand::Gather(_)) {
        let written = [
            Some(fields.reg),
            (form.space == Space::Vex).then_some(fields.vvvv),
        ];
        let index = Some(place.index());
        if written.contains(&index) || written[0] == written[1] {
            return Err("the registers of a gather must differ");
        }
    }
    let mut b = Bytes {
        bytes: [0; 16],
        len: 0,
    };
    match form.space {
        Space::Legacy => legacy(form, &fields, &place, &mut b),
        Space::Vex => vex(form, &fields, &place, &mut b),
        Space::Evex => evex(form, &fields, &place, mask, &mut b)?,
    }
    if mask.is_some() && form.masking == Masking::Never {
        return Err("this form takes no mask");
    }
    b.push(form.opcode | (fields.opcode & 7));
    let mut address = None;
    if !matches!(form.order, Order::None | Order::O) {
        b.push(place.modrm | (fields.reg & 7) << 3);
        if let Some(sib) = place.sib {
            b.push(sib);
        }
        match place.disp {
            Disp::None => {}
            Disp::Byte(d) => b.push(d as u8),
            Disp::Long(d) => {
                if let Some(Base::Pool(c)) = fields.memory.map(|m| m.base) {
                    address = Some((out.len() + b.len, c));
                }
                b.extend(&d.to_le_bytes());
            }
        }
    }
    if form.order == Order::RvmIs4 {
        b.push(fields.is4 << 4);
    }
    put_immediate(form.immediate, immediate, &mut b)?;
    // All sixteen are copied at once, which is less work than a copy of so many.
    let len = out.len() + b.len;
    out.extend_from_slice(&b.bytes);
    out.truncate(len);
    Ok(address)
}

/// Sorts the operands into their fields.
fn fields<'a>(form: &Form, args: &'a [Arg]) -> Result<Fields<'a>, Refusal> {
    let order = form.order.fields();
    if args.len() != order.len() {
        return Err("wrong number of operands");
    }
    let mut fields = Fields {
        reg: form.digit,
        ..Fields::default()
    };
    for ((arg, &field), &takes) in args.iter().zip(order).zip(&form.operands) {
        let (class, n) = match *arg {
            Arg::V(n, Width::X) => (Class::X, n),
            Arg::V(n, Width::Y) => (Class::Y, n),
            Arg::V(n, Width::Z) => (Class::Z, n),
            Arg::K(n) => (Class::K, n),
            Arg::R8(n) => (Class::R8, n),
            Arg::R16(n) => (Class::R16, n),
            Arg::R32(n) => (Class::R32, n),
            Arg::R64(n) => (Class::R64, n),
            Arg::M(ref m) => match takes {
                Operand::Memory | Operand::Either(_) | Operand::Gather(_) => {
                    fields.memory = Some(m);
                    continue;
                }
                _ => return Err("an operand cannot be in memory"),
            },
        };
        match takes {
            Operand::Register(c) | Operand::Either(c) if c == class => {}
            _ => return Err("an operand is of the wrong kind"),
        }
        let registers = match class {
            Class::K => 8,
            Class::X | Class::Y | Class::Z if form.space == Space::Evex => 32,
            _ => 16,
        };
        if n >= registers {
            return Err("this form does not reach that register");
        }
        fields.rex |= class == Class::R8 && (4..8).contains(&n);
        match field {
            Field::Reg => fields.reg = n,
            Field::Rm => fields.rm = n,
            Field::Vvvv => fields.vvvv = n,
            Field::Is4 => fields.is4 = n,
            Field::Opcode => {
                fields.opcode = n;
                fields.rm = n;
            }
        }
    }
    Ok(fields)
}

enum Disp {
    None,
    Byte(i8),
    Long(i32),
}

/// What `ModRM.rm` says, with all that belongs to it.
struct Place {
    /// `mod` and `rm`.
    modrm: u8,
    sib: Option<u8>,
    disp: Disp,
    /// Bit 3 of `rm` or of the base.
    b: u8,
    /// Bit 3 of an index; bit 4 of a vector in `rm`.
    x: u8,
    /// Bit 4 of an index.
    v: u8,
}

impl Place {
    fn register(n: u8) -> Self {
        Place {
            modrm: 0xc0 | (n & 7),
            sib: None,
            disp: Disp::None,
            b: n >> 3 & 1,
            x: n >> 4 & 1,
            v: 0,
        }
    }
    /// The number of the index.
    fn index(&self) -> u8 {
        self.v << 4 | self.x << 3 | self.sib.map_or(0, |s| s >> 3 & 7)
    }
}

/// An address in memory.
fn place(form: &Form, m: &Mem) -> Result<Place, Refusal> {
    let unit = match (form.space, m.broadcast) {
        (Space::Evex, false) => form.memory,
        (Space::Evex, true) if form.broadcast != 0 => form.broadcast,
        (_, false) => 1,
        (_, true) => return Err("this form does not broadcast"),
    };
    let vector = match form.operands[1] {
        Operand::Gather(w) => Some(w),
        _ => None,
    };
    let base = match m.base {
        Base::Gpr(n) if n < 16 => n,
        Base::Gpr(_) => return Err("there is no such base register"),
        Base::Pool(_) => {
            if m.index.is_some() || m.disp != 0 || vector.is_some() {
                return Err("a constant's address has no index and no displacement");
            }
            return Ok(Place {
                modrm: 5,
                sib: None,
                disp: Disp::Long(0),
                b: 0,
                x: 0,
                v: 0,
            });
        }
    };
    let unit = i32::from(unit.max(1));
    // Without a displacement, the base 5 would mean something else.
    let (mode, disp) = if m.disp == 0 && base & 7 != 5 {
        (0x00, Disp::None)
    } else {
        match i8::try_from(m.disp / unit) {
            Ok(d) if m.disp % unit == 0 => (0x40, Disp::Byte(d)),
            _ => (0x80, Disp::Long(m.disp)),
        }
    };
    let vectors = if form.space == Space::Evex { 32 } else { 16 };
    let index = match (m.index, vector) {
        // Number 4 says that there is none.
        (Some((Index::Gpr(n), scale)), None) if n < 16 && n != 4 => Some((n, scale)),
        (Some((Index::Vec(n, w), scale)), Some(v)) if w == v && n < vectors => Some((n, scale)),
        (None, None) => None,
        _ => return Err("an address cannot have that index"),
    };
    let scale = match index.map_or(1, |(_, scale)| scale) {
        1 => 0x00,
        2 => 0x40,
        4 => 0x80,
        8 => 0xc0,
        _ => return Err("an index cannot have that scale"),
    };
    let n = index.map_or(4, |(n, _)| n);
    let sib = (index.is_some() || base & 7 == 4).then_some(scale | (n & 7) << 3 | (base & 7));
    Ok(Place {
        modrm: mode | if sib.is_some() { 4 } else { base & 7 },
        sib,
        disp,
        b: base >> 3,
        x: n >> 3 & 1,
        v: n >> 4 & 1,
    })
}

fn legacy(form: &Form, fields: &Fields, place: &Place, b: &mut Bytes) {
    match form.prefix {
        Prefix::NP => {}
        Prefix::P66 => b.push(0x66),
        Prefix::PF3 => b.push(0xf3),
        Prefix::PF2 => b.push(0xf2),
    }
    let rex = u8::from(form.w) << 3 | (fields.reg >> 3) << 2 | place.x << 1 | place.b;
    if rex != 0 || fields.rex {
        b.push(0x40 | rex);
    }
    match form.map {
        Map::OneByte => {}
        Map::M0F => b.push(0x0f),
        Map::M0F38 => b.extend(&[0x0f, 0x38]),
        Map::M0F3A => b.extend(&[0x0f, 0x3a]),
    }
}

fn vex(form: &Form, fields: &Fields, place: &Place, b: &mut Bytes) {
    let r = fields.reg >> 3;
    let last = (!fields.vvvv & 15) << 3 | form.length << 2 | form.prefix as u8;
    if form.map == Map::M0F && !form.w && place.x == 0 && place.b == 0 {
        b.extend(&[0xc5, (r ^ 1) << 7 | last]);
    } else {
        let high = (r ^ 1) << 7 | (place.x ^ 1) << 6 | (place.b ^ 1) << 5;
        b.extend(&[0xc4, high | form.map as u8, u8::from(form.w) << 7 | last]);
    }
}

fn evex(
    form: &Form,
    fields: &Fields,
    place: &Place,
    mask: Option<(u8, bool)>,
    b: &mut Bytes,
) -> Result<(), Refusal> {
    let (k, zero) = match mask {
        None if form.masking == Masking::Always => return Err("this form needs a mask"),
        None => (0, false),
        Some((k @ 1..8, zero)) => (k, zero),
        Some(_) => return Err("there is no such mask"),
    };
    // Memory that is written keeps its lanes.
    let stores = matches!(form.order, Order::Mr) && fields.memory.is_some();
    if zero && (form.masking != Masking::Zero || stores) {
        return Err("this form does not zero what is masked out");
    }
    let broadcast = fields.memory.is_some_and(|m| m.broadcast);
    let (reg, vvvv) = (fields.reg, fields.vvvv);
    // Register bits are stored inverted.
    let high = (reg >> 3 & 1) << 7 | place.x << 6 | place.b << 5 | (reg >> 4) << 4;
    let v = vvvv >> 4 | place.v;
    b.extend(&[
        0x62,
        high ^ 0xf0 | form.map as u8,
        u8::from(form.w) << 7 | (!vvvv & 15) << 3 | 4 | form.prefix as u8,
        u8::from(zero) << 7 | form.length << 5 | u8::from(broadcast) << 4 | (v ^ 1) << 3 | k,
    ]);
    Ok(())
}

fn put_immediate(takes: Immediate, value: Option<i64>, b: &mut Bytes) -> Result<(), Refusal> {
    let Some(v) = value else {
        return match takes {
            Immediate::None => Ok(()),
            _ => Err("an immediate is missing"),
        };
    };
    let (range, bytes) = match takes {
        Immediate::None => return Err("this form has no immediate"),
        Immediate::Byte => (-0x80..=0xff, 1),
        Immediate::Signed8 => (-0x80..=0x7f, 1),
        Immediate::Any32 => (i64::from(i32::MIN)..=i64::from(u32::MAX), 4),
        Immediate::Signed32 => (i64::from(i32::MIN)..=i64::from(i32::MAX), 4),
        Immediate::Any64 => (i64::MIN..=i64::MAX, 8),
    };
    if !range.contains(&v) {
        return Err("the immediate does not fit");
    }
    b.extend(&v.to_le_bytes()[..bytes]);
    Ok(())
}
