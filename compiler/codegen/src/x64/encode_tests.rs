//! The encoder against iced's: every form with random operands gives the same bytes, which decode to
//! what was said.

use super::EmitError;
use super::asm::{Arg, Asm, Base, Constant, Index, Mem, Width};
use super::encode::{Class, Field, Form, Immediate, Masking, Operand, Order, Space, encode};
use super::{forms as f, table as t};
use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, OpKind, Register};

/// Cases of each form.
const CASES: usize = 3000;

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// An instruction as the emitter asks for it.
#[derive(Clone, Debug)]
struct Case {
    args: Vec<Arg>,
    immediate: Option<i64>,
    mask: Option<(u8, bool)>,
}

impl Case {
    fn encode(&self, form: &Form) -> Result<Vec<u8>, &'static str> {
        let mut bytes = vec![0xcc];
        let address = encode(form, &self.args, self.immediate, self.mask, &mut bytes);
        match address {
            Ok(Some((at, _))) => assert_eq!(bytes[at..at + 4], [0; 4], "{self:?}"),
            Ok(None) => {}
            Err(_) => assert_eq!(bytes, [0xcc], "{self:?}"),
        }
        address.map(|_| bytes.split_off(1))
    }
}

/// All forms, with their names and their codes' names.
fn every_form() -> Vec<(&'static str, String, Form)> {
    let alone = f::ALL.iter().map(|&(name, form)| {
        let space = if form.space == Space::Vex { "VEX_" } else { "" };
        (name, format!("{space}{name}"), form)
    });
    let rows = t::ALL.iter().flat_map(|&(name, op)| {
        let base = name.split('_').next().unwrap();
        let forms =
            [Width::X, Width::Y, Width::Z].map(|w| [op.vex(w).copied(), op.evex(w).copied()]);
        forms.into_iter().flatten().flatten().map(move |form| {
            let code = match (form.space, base) {
                (Space::Evex, "ROUNDPS") => "EVEX_VRNDSCALEPS_".to_owned(),
                (Space::Evex, "ROUNDPD") => "EVEX_VRNDSCALEPD_".to_owned(),
                (Space::Evex, _) => format!("EVEX_V{base}_"),
                _ => format!("VEX_V{base}_"),
            };
            (name, code, form)
        })
    });
    alone.chain(rows).collect()
}

fn constant() -> Constant {
    Asm::new().constant(&[0])
}

fn register(class: Class, form: &Form, numbers: &mut Numbers) -> Arg {
    let vectors = if form.space == Space::Evex { 32 } else { 16 };
    let vector = numbers.below(vectors) as u8;
    let general = numbers.below(16) as u8;
    match class {
        Class::X => Arg::V(vector, Width::X),
        Class::Y => Arg::V(vector, Width::Y),
        Class::Z => Arg::V(vector, Width::Z),
        Class::K => Arg::K(numbers.below(8) as u8),
        Class::R8 => Arg::R8(general),
        Class::R16 => Arg::R16(general),
        Class::R32 => Arg::R32(general),
        Class::R64 => Arg::R64(general),
    }
}

fn memory(vector: Option<Width>, form: &Form, numbers: &mut Numbers) -> Mem {
    let broadcast = form.broadcast != 0 && numbers.one_in(3);
    if vector.is_none() && numbers.one_in(8) {
        return Mem {
            base: Base::Pool(constant()),
            index: None,
            disp: 0,
            broadcast,
        };
    }
    let unit = match (form.space, broadcast) {
        (Space::Evex, false) => i32::from(form.memory),
        (Space::Evex, true) => i32::from(form.broadcast),
        _ => 1,
    };
    let near = numbers.of(&[-129, -128, -127, -1, 0, 1, 126, 127, 128]);
    let disp = match numbers.below(6) {
        0 | 1 => 0,
        2 => near,
        3 => near * unit,
        4 => near * unit + numbers.of(&[-1, 1]),
        _ => numbers.of(&[i32::MIN, i32::MAX, numbers.0 as i32]),
    };
    let scale = numbers.of(&[1, 2, 4, 8]);
    let index = match vector {
        Some(w) => {
            let vectors = if form.space == Space::Evex { 32 } else { 16 };
            Some((Index::Vec(numbers.below(vectors) as u8, w), scale))
        }
        None if numbers.one_in(2) => None,
        None => {
            let registers = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
            Some((Index::Gpr(numbers.of(&registers)), scale))
        }
    };
    Mem {
        base: Base::Gpr(numbers.below(16) as u8),
        index,
        disp,
        broadcast,
    }
}

/// The vector registers of a gather, which must differ (a mask register is not one of them).
fn gather_registers(args: &[Arg]) -> Vec<u8> {
    let number = |a: &Arg| match *a {
        Arg::V(n, _) => Some(n),
        Arg::M(Mem {
            index: Some((Index::Vec(n, _), _)),
            ..
        }) => Some(n),
        _ => None,
    };
    args.iter().filter_map(number).collect()
}

/// Operands that a form can have.
fn legal(form: &Form, numbers: &mut Numbers) -> Case {
    let args: Vec<Arg> = loop {
        let operands = form.operands.iter();
        let args: Vec<Arg> = operands
            .filter_map(|&operand| match operand {
                Operand::None => None,
                Operand::Register(c) => Some(register(c, form, numbers)),
                Operand::Either(c) if numbers.one_in(2) => Some(register(c, form, numbers)),
                Operand::Either(_) | Operand::Memory => Some(Arg::M(memory(None, form, numbers))),
                Operand::Gather(w) => Some(Arg::M(memory(Some(w), form, numbers))),
            })
            .collect();
        let mut used = gather_registers(&args);
        let all = used.len();
        used.sort_unstable();
        used.dedup();
        let gathers = form
            .operands
            .iter()
            .any(|o| matches!(o, Operand::Gather(_)));
        if !gathers || used.len() == all {
            break args;
        }
    };
    let k = 1 + numbers.below(7) as u8;
    let stores = matches!(args.first(), Some(Arg::M(_)));
    let mask = match form.masking {
        Masking::Always => Some((k, false)),
        Masking::Merge if numbers.one_in(2) => Some((k, false)),
        Masking::Zero if numbers.one_in(2) => Some((k, !stores && numbers.one_in(2))),
        _ => None,
    };
    let any = numbers.next();
    let immediate = match form.immediate {
        Immediate::None => None,
        Immediate::Byte => Some(i64::from(any as u8)),
        Immediate::Signed8 => Some(i64::from(any as i8)),
        Immediate::Any32 => Some(i64::from(any as u32)),
        Immediate::Signed32 => Some(i64::from(any as i32)),
        Immediate::Any64 => Some(any as i64),
    };
    Case {
        args,
        immediate,
        mask,
    }
}

fn iced_vector(n: u8, w: Width) -> Register {
    let first = match w {
        Width::X => Register::XMM0,
        Width::Y => Register::YMM0,
        Width::Z => Register::ZMM0,
    };
    first + u32::from(n)
}

fn iced_register(arg: Arg) -> Option<Register> {
    Some(match arg {
        Arg::V(n, w) => iced_vector(n, w),
        Arg::K(n) => Register::K0 + u32::from(n),
        Arg::R8(n @ 0..4) => Register::AL + u32::from(n),
        Arg::R8(n @ 4..8) => Register::SPL + u32::from(n - 4),
        Arg::R8(n) => Register::R8L + u32::from(n - 8),
        Arg::R16(n) => Register::AX + u32::from(n),
        Arg::R32(n) => Register::EAX + u32::from(n),
        Arg::R64(n) => Register::RAX + u32::from(n),
        Arg::M(_) => return None,
    })
}

/// The base, index, scale and displacement of an address in an instruction of `len` bytes at 0.
fn iced_address(m: Mem, len: usize) -> (Register, Register, u32, i64) {
    let base = match m.base {
        Base::Gpr(n) => Register::RAX + u32::from(n),
        Base::Pool(_) => return (Register::RIP, Register::None, 1, len as i64),
    };
    let (index, scale) = match m.index {
        None => (Register::None, 1),
        Some((Index::Gpr(n), scale)) => (Register::RAX + u32::from(n), u32::from(scale)),
        Some((Index::Vec(n, w), scale)) => (iced_vector(n, w), u32::from(scale)),
    };
    (base, index, scale, i64::from(m.disp))
}

/// What iced writes. `sample` is an instruction of the same form.
fn iced_bytes(sample: &Instruction, case: &Case, len: usize) -> Vec<u8> {
    let mut i = Instruction::default();
    i.set_code(sample.code());
    for (n, &arg) in case.args.iter().enumerate() {
        let n = n as u32;
        match (arg, iced_register(arg)) {
            (_, Some(r)) => i.set_op_register(n, r),
            (Arg::M(m), _) => {
                let (base, index, scale, disp) = iced_address(m, len);
                i.set_op_kind(n, OpKind::Memory);
                i.set_is_broadcast(m.broadcast);
                i.set_memory_base(base);
                i.set_memory_index(index);
                i.set_memory_index_scale(scale);
                i.set_memory_displacement64(disp as u64);
                // As short as can be, where there is one.
                i.set_memory_displ_size(if base == Register::RIP {
                    8
                } else {
                    u32::from(disp != 0)
                });
            }
            _ => unreachable!("an operand is a register or memory"),
        }
    }
    if let Some(v) = case.immediate {
        let n = case.args.len() as u32;
        let kind = sample.op_kind(n);
        i.set_op_kind(n, kind);
        match kind {
            OpKind::Immediate8 => i.set_immediate8(v as u8),
            OpKind::Immediate8to32 => i.set_immediate8to32(v as i32),
            OpKind::Immediate8to64 => i.set_immediate8to64(v),
            OpKind::Immediate32 => i.set_immediate32(v as u32),
            OpKind::Immediate32to64 => i.set_immediate32to64(v),
            OpKind::Immediate64 => i.set_immediate64(v as u64),
            other => unreachable!("{other:?}"),
        }
    }
    if let Some((k, zero)) = case.mask {
        i.set_op_mask(Register::K0 + u32::from(k));
        i.set_zeroing_masking(zero);
    }
    let mut encoder = Encoder::new(64);
    let result = encoder.encode(&i, 0);
    assert!(
        result.is_ok(),
        "{:?}: {result:?} for {case:?}",
        sample.code()
    );
    encoder.take_buffer()
}

fn decode(bytes: &[u8]) -> Instruction {
    Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode()
}

/// That bytes decode to a case.
fn reads_back(bytes: &[u8], form: &Form, case: &Case) {
    let i = decode(bytes);
    let context = format!("{form}: {case:?} as {bytes:02x?}");
    assert!(!i.is_invalid(), "{context}");
    assert_eq!(i.len(), bytes.len(), "{context}");
    for (n, &arg) in case.args.iter().enumerate() {
        let n = n as u32;
        if let Arg::M(m) = arg {
            let (base, index, scale, disp) = iced_address(m, bytes.len());
            assert_eq!(i.op_kind(n), OpKind::Memory, "{context}");
            assert_eq!(i.memory_base(), base, "{context}");
            assert_eq!(i.memory_index(), index, "{context}");
            assert_eq!(i.memory_index_scale(), scale, "{context}");
            assert_eq!(i.memory_displacement64() as i64, disp, "{context}");
            assert_eq!(i.is_broadcast(), m.broadcast, "{context}");
        } else {
            assert_eq!(Some(i.op_register(n)), iced_register(arg), "{context}");
        }
    }
    match case.mask {
        Some((k, zero)) => {
            assert_eq!(i.op_mask(), Register::K0 + u32::from(k), "{context}");
            assert_eq!(i.zeroing_masking(), zero, "{context}");
        }
        None => assert!(!i.has_op_mask(), "{context}"),
    }
    if let Some(v) = case.immediate {
        let want = match form.immediate {
            Immediate::Byte => u64::from(v as u8),
            Immediate::Any32 => u64::from(v as u32),
            _ => v as u64,
        };
        assert_eq!(i.immediate(case.args.len() as u32), want, "{context}");
    }
    let implied = u32::from(matches!(form.order, Order::None));
    let operands = case.args.len() as u32 + u32::from(case.immediate.is_some());
    assert!(i.op_count() == operands || implied == 1, "{context}");
}

#[test]
fn every_form_is_the_instruction_of_its_name() {
    let mut numbers = Numbers(1);
    for (name, code, form) in every_form() {
        let bytes = legal(&form, &mut numbers).encode(&form).unwrap();
        let found = format!("{:?}", decode(&bytes).code()).to_uppercase();
        let same = if code.ends_with('_') {
            found.starts_with(&code)
        } else {
            found == code
        };
        assert!(same, "{name} ({form}) is {found}, not {code}");
    }
}

#[test]
fn random_operands_give_the_bytes_of_iced() {
    let mut numbers = Numbers(2);
    for (name, _, form) in every_form() {
        let sample = decode(&legal(&form, &mut numbers).encode(&form).unwrap());
        for _ in 0..CASES {
            let case = legal(&form, &mut numbers);
            let bytes = case.encode(&form);
            let Ok(bytes) = bytes else {
                panic!("{name} ({form}): {bytes:?} for {case:?}");
            };
            let want = iced_bytes(&sample, &case, bytes.len());
            assert_eq!(bytes, want, "{name} ({form}): {case:x?}");
            reads_back(&bytes, &form, &case);
        }
    }
}

/// Any operand at all, possible or not.
fn anything(form: &Form, numbers: &mut Numbers) -> Arg {
    let n = numbers.next() as u8;
    let w = numbers.of(&[Width::X, Width::Y, Width::Z]);
    match numbers.below(8) {
        0 => Arg::V(n, w),
        1 => Arg::K(n),
        2 => Arg::R8(n % 40),
        3 => Arg::R16(n % 40),
        4 => Arg::R32(n % 40),
        5 => Arg::R64(n % 40),
        _ => {
            let vector = numbers.one_in(4).then_some(w);
            let mut m = memory(vector, form, numbers);
            match numbers.below(6) {
                0 => m.base = Base::Gpr(n),
                1 => m.index = Some((Index::Gpr(n % 20), numbers.below(10) as u8)),
                2 => m.index = Some((Index::Vec(n % 40, w), 4)),
                3 => m.broadcast = true,
                4 => m.disp = 12,
                _ => {}
            }
            Arg::M(m)
        }
    }
}

#[test]
fn what_is_not_refused_is_right() {
    let mut numbers = Numbers(3);
    let mut written = 0;
    for (_, _, form) in every_form() {
        let sample = decode(&legal(&form, &mut numbers).encode(&form).unwrap());
        for _ in 0..CASES {
            let mut case = legal(&form, &mut numbers);
            match numbers.below(5) {
                0 => case.args.push(anything(&form, &mut numbers)),
                1 => drop(case.args.pop()),
                2 => {
                    case.mask = Some((numbers.below(10) as u8, numbers.one_in(2)));
                }
                3 => {
                    case.immediate = numbers
                        .one_in(4)
                        .then(|| numbers.next() as i64 >> numbers.below(64));
                }
                _ => {}
            }
            let n = numbers.below(4) as usize;
            if let Some(arg) = case.args.get_mut(n) {
                *arg = anything(&form, &mut numbers);
            }
            if let Ok(bytes) = case.encode(&form) {
                assert_eq!(
                    bytes,
                    iced_bytes(&sample, &case, bytes.len()),
                    "{form}: {case:?}"
                );
                reads_back(&bytes, &form, &case);
                written += 1;
            }
        }
    }
    assert!(written > 10_000, "{written}");
}

#[test]
fn what_a_form_cannot_say_is_refused() {
    const X: Width = Width::X;
    const Y: Width = Width::Y;
    let at = |base, index, disp| {
        Arg::M(Mem {
            base: Base::Gpr(base),
            index,
            disp,
            broadcast: false,
        })
    };
    let m = at(0, None, 0);
    let broadcast = Arg::M(Mem {
        broadcast: true,
        ..Mem::at(0, 0)
    });
    let constant = |index, disp| {
        Arg::M(Mem {
            base: Base::Pool(constant()),
            index,
            disp,
            broadcast: false,
        })
    };
    let y = |n| Arg::V(n, Y);
    let vex = |op: t::Op| *op.vex(Y).unwrap();
    let evex = |op: t::Op| *op.evex(Y).unwrap();
    let lanes = at(0, Some((Index::Vec(3, Y), 4)), 0);
    let rsp = at(0, Some((Index::Gpr(4), 1)), 0);
    let third = at(0, Some((Index::Gpr(1), 3)), 0);
    let zero = Some((1, true));
    let mask = Some((1, false));
    let r = Arg::R64;
    type Row = (
        Form,
        Vec<Arg>,
        Option<i64>,
        Option<(u8, bool)>,
        &'static str,
    );
    let rows: Vec<Row> = vec![
        (
            vex(t::ADDPS),
            vec![y(0), y(1)],
            None,
            None,
            "number of operands",
        ),
        (
            vex(t::ADDPS),
            vec![y(0), y(16), y(1)],
            None,
            None,
            "reach that register",
        ),
        (
            evex(t::ADDPS),
            vec![y(0), y(32), y(1)],
            None,
            None,
            "reach that register",
        ),
        (
            vex(t::ADDPS),
            vec![y(0), y(1), Arg::V(2, X)],
            None,
            None,
            "wrong kind",
        ),
        (
            vex(t::ADDPS),
            vec![y(0), y(1), r(2)],
            None,
            None,
            "wrong kind",
        ),
        (vex(t::ADDPS), vec![y(0), m, y(2)], None, None, "in memory"),
        (
            vex(t::ADDPS),
            vec![y(0), y(1), y(2)],
            None,
            mask,
            "takes no mask",
        ),
        (
            vex(t::ADDPS),
            vec![y(0), y(1), y(2)],
            Some(1),
            None,
            "has no immediate",
        ),
        (
            vex(t::ADDPS),
            vec![y(0), y(1), broadcast],
            None,
            None,
            "broadcast",
        ),
        (
            evex(t::MOVUPS),
            vec![y(0), broadcast],
            None,
            None,
            "broadcast",
        ),
        (
            evex(t::ADDPS),
            vec![y(0), y(1), y(2)],
            None,
            Some((0, false)),
            "no such mask",
        ),
        (
            evex(t::ADDPS),
            vec![y(0), y(1), y(2)],
            None,
            Some((8, false)),
            "no such mask",
        ),
        (
            evex(t::MOVUPS_ST),
            vec![m, y(2)],
            None,
            zero,
            "does not zero",
        ),
        (
            evex(t::CMPPS_K),
            vec![Arg::K(2), y(1), y(2)],
            Some(0),
            zero,
            "does not zero",
        ),
        (
            evex(t::CMPPS_K),
            vec![Arg::K(8), y(1), y(2)],
            Some(0),
            None,
            "reach that register",
        ),
        (
            evex(t::GATHERDPS),
            vec![y(1), lanes],
            None,
            None,
            "needs a mask",
        ),
        (
            evex(t::GATHERDPS),
            vec![y(3), lanes],
            None,
            mask,
            "must differ",
        ),
        (
            vex(t::GATHERDPS),
            vec![y(1), lanes, y(1)],
            None,
            None,
            "must differ",
        ),
        (
            vex(t::GATHERDPS),
            vec![y(1), lanes, y(3)],
            None,
            None,
            "must differ",
        ),
        (
            vex(t::GATHERDPS),
            vec![y(1), m, y(2)],
            None,
            None,
            "have that index",
        ),
        (
            vex(t::GATHERDPS),
            vec![y(1), constant(None, 0), y(2)],
            None,
            None,
            "constant's address",
        ),
        (
            vex(t::MASKMOVPS),
            vec![y(1), y(2), y(3)],
            None,
            None,
            "wrong kind",
        ),
        (
            f::MOV_R64_RM64,
            vec![r(0), lanes],
            None,
            None,
            "have that index",
        ),
        (
            f::MOV_R64_RM64,
            vec![r(0), rsp],
            None,
            None,
            "have that index",
        ),
        (
            f::MOV_R64_RM64,
            vec![r(0), third],
            None,
            None,
            "have that scale",
        ),
        (
            f::MOV_R64_RM64,
            vec![r(0), at(16, None, 0)],
            None,
            None,
            "base register",
        ),
        (
            f::MOV_R64_RM64,
            vec![r(0), constant(None, 8)],
            None,
            None,
            "constant's address",
        ),
        (
            f::MOV_R64_RM64,
            vec![r(16), r(0)],
            None,
            None,
            "reach that register",
        ),
        (f::LEA_R64_M, vec![r(0), r(1)], None, None, "wrong kind"),
        (
            f::ADD_RM64_IMM8,
            vec![r(0)],
            Some(128),
            None,
            "does not fit",
        ),
        (
            f::ADD_RM64_IMM32,
            vec![r(0)],
            Some(1 << 31),
            None,
            "does not fit",
        ),
        (
            f::MOV_R32_IMM32,
            vec![Arg::R32(0)],
            Some(1 << 32),
            None,
            "does not fit",
        ),
        (
            f::ADD_RM64_IMM8,
            vec![r(0)],
            None,
            None,
            "immediate is missing",
        ),
        (f::RETNQ, vec![r(0)], None, None, "number of operands"),
    ];
    for (form, args, immediate, mask, why) in rows {
        let case = Case {
            args,
            immediate,
            mask,
        };
        match case.encode(&form) {
            Ok(bytes) => panic!("{form}: {case:?} is {bytes:02x?}"),
            Err(e) => assert!(e.contains(why), "{form}: {case:?}: {e}, not {why}"),
        }
    }
}

#[test]
fn a_refusal_is_an_error_that_names_the_form() {
    let z = Arg::V(0, Width::Z);
    let mut asm = Asm::new();
    asm.vop(&t::FMADD231PS, Width::Z, &[z, z], None, None);
    asm.vop(&t::PCMPEQD, Width::Z, &[z, z, z], None, None);
    let Err(EmitError::Encode { code, .. }) = asm.finish() else {
        panic!("two operands for three");
    };
    assert_eq!(code, "EVEX.512.66.0F38.W0 B8 /r");

    let mut asm = Asm::new();
    asm.vop(&t::PCMPEQD, Width::Z, &[z, z, z], None, None);
    let Err(EmitError::Encode { code, why }) = asm.finish() else {
        panic!("there is no such form");
    };
    assert_eq!(code, "VEX.128.66.0F.W0 76 /r");
    assert!(why.contains("this width"), "{why}");
}

/// An operand in memory stands where `ModRM.rm` is, that of a gather second; its size is a power of two.
#[test]
fn forms_are_well_made() {
    for (name, _, form) in every_form() {
        let fields = form.order.fields();
        for (n, operand) in form.operands.iter().enumerate() {
            let memory = !matches!(operand, Operand::None | Operand::Register(_));
            assert_eq!(
                fields.get(n).is_none(),
                *operand == Operand::None,
                "{name}: {form}"
            );
            assert!(!memory || fields[n] == Field::Rm, "{name}: {form}");
            let gathers = matches!(operand, Operand::Gather(_));
            assert!(!gathers || n == 1, "{name}: {form}");
        }
        assert!(form.memory.is_power_of_two(), "{name}: {form}");
        let code = decode(&legal(&form, &mut Numbers(4)).encode(&form).unwrap()).code();
        assert_ne!(code, Code::INVALID, "{name}: {form}");
    }
}
