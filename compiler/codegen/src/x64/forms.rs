//! Instructions that have one form: integers, control, mask registers, scalar conversions.
//!
//! The facts are those of Intel's manual, volume 2; a name is the mnemonic and its operands. Vector
//! operations, which have a form for each width, stand in `table`.

use super::encode::{Class, Form, Immediate, Map, Masking, Operand, Order, Prefix, Space};
use Class::{K, R8, R16, R32, R64, X, Y};
use Immediate::{Any32, Any64, Byte, Signed8, Signed32};
use Map::{M0F, M0F38};
use Operand::{Either, Memory, Register};
use Prefix::{NP, P66, PF2, PF3};

const fn form(space: Space, prefix: Prefix, map: Map, opcode: u8) -> Form {
    Form {
        space,
        prefix,
        map,
        opcode,
        w: false,
        length: 0,
        order: Order::None,
        digit: 0,
        operands: [Operand::None; 4],
        immediate: Immediate::None,
        masking: Masking::Never,
        memory: 1,
        broadcast: 0,
    }
}
/// An opcode of one byte.
const fn one(opcode: u8) -> Form {
    form(Space::Legacy, NP, Map::OneByte, opcode)
}
/// An opcode behind 0F.
const fn two(opcode: u8) -> Form {
    form(Space::Legacy, NP, M0F, opcode)
}
const fn vex(prefix: Prefix, map: Map, opcode: u8) -> Form {
    form(Space::Vex, prefix, map, opcode)
}

impl Form {
    const fn prefix(mut self, prefix: Prefix) -> Self {
        self.prefix = prefix;
        self
    }
    const fn w(mut self) -> Self {
        self.w = true;
        self
    }
    const fn l(mut self) -> Self {
        self.length = 1;
        self
    }
    const fn imm(mut self, immediate: Immediate) -> Self {
        self.immediate = immediate;
        self
    }
    const fn operands(mut self, order: Order, operands: [Operand; 3]) -> Self {
        let [first, second, third] = operands;
        self.order = order;
        self.operands = [first, second, third, Operand::None];
        self
    }
    const fn o(self, class: Class) -> Self {
        self.operands(Order::O, [Register(class), Operand::None, Operand::None])
    }
    const fn m(mut self, digit: u8, rm: Operand) -> Self {
        self.digit = digit;
        self.operands(Order::M, [rm, Operand::None, Operand::None])
    }
    const fn rm(self, reg: Class, rm: Operand) -> Self {
        self.operands(Order::Rm, [Register(reg), rm, Operand::None])
    }
    const fn mr(self, rm: Operand, reg: Class) -> Self {
        self.operands(Order::Mr, [rm, Register(reg), Operand::None])
    }
    const fn rvm(self, reg: Class, vvvv: Class, rm: Operand) -> Self {
        self.operands(Order::Rvm, [Register(reg), Register(vvvv), rm])
    }
    const fn rmv(self, reg: Class, rm: Operand, vvvv: Class) -> Self {
        self.operands(Order::Rmv, [Register(reg), rm, Register(vvvv)])
    }
}

macro_rules! forms {
    ($($name:ident = $form:expr;)*) => {
        $(pub(super) const $name: Form = $form;)*
        /// Every form by its name.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, Form)] = &[$((stringify!($name), $name)),*];
    };
}

forms! {
    PUSH_R64 = one(0x50).o(R64);
    POP_R64 = one(0x58).o(R64);
    RETNQ = one(0xc3);
    CQO = one(0x99).w();
    LEA_R64_M = one(0x8d).w().rm(R64, Memory);

    MOV_R32_IMM32 = one(0xb8).o(R32).imm(Any32);
    MOV_R64_IMM64 = one(0xb8).w().o(R64).imm(Any64);
    MOV_RM32_IMM32 = one(0xc7).m(0, Either(R32)).imm(Any32);
    MOV_RM64_IMM32 = one(0xc7).w().m(0, Either(R64)).imm(Signed32);
    MOV_R32_RM32 = one(0x8b).rm(R32, Either(R32));
    MOV_R64_RM64 = one(0x8b).w().rm(R64, Either(R64));
    MOV_RM8_R8 = one(0x88).mr(Either(R8), R8);
    MOV_RM16_R16 = one(0x89).prefix(P66).mr(Either(R16), R16);
    MOV_RM32_R32 = one(0x89).mr(Either(R32), R32);
    MOV_RM64_R64 = one(0x89).w().mr(Either(R64), R64);
    MOVSX_R64_RM8 = two(0xbe).w().rm(R64, Either(R8));
    MOVSX_R64_RM16 = two(0xbf).w().rm(R64, Either(R16));
    MOVSXD_R64_RM32 = one(0x63).w().rm(R64, Either(R32));
    MOVZX_R32_RM8 = two(0xb6).rm(R32, Either(R8));
    MOVZX_R32_RM16 = two(0xb7).rm(R32, Either(R16));
    CMOVL_R64_RM64 = two(0x4c).w().rm(R64, Either(R64));
    CMOVG_R64_RM64 = two(0x4f).w().rm(R64, Either(R64));

    ADD_R64_RM64 = one(0x03).w().rm(R64, Either(R64));
    OR_R64_RM64 = one(0x0b).w().rm(R64, Either(R64));
    AND_R64_RM64 = one(0x23).w().rm(R64, Either(R64));
    SUB_R64_RM64 = one(0x2b).w().rm(R64, Either(R64));
    XOR_R64_RM64 = one(0x33).w().rm(R64, Either(R64));
    XOR_R32_RM32 = one(0x33).rm(R32, Either(R32));
    CMP_R64_RM64 = one(0x3b).w().rm(R64, Either(R64));
    ADD_RM64_IMM8 = one(0x83).w().m(0, Either(R64)).imm(Signed8);
    OR_RM64_IMM8 = one(0x83).w().m(1, Either(R64)).imm(Signed8);
    AND_RM64_IMM8 = one(0x83).w().m(4, Either(R64)).imm(Signed8);
    SUB_RM64_IMM8 = one(0x83).w().m(5, Either(R64)).imm(Signed8);
    XOR_RM64_IMM8 = one(0x83).w().m(6, Either(R64)).imm(Signed8);
    CMP_RM64_IMM8 = one(0x83).w().m(7, Either(R64)).imm(Signed8);
    CMP_RM32_IMM8 = one(0x83).m(7, Either(R32)).imm(Signed8);
    ADD_RM64_IMM32 = one(0x81).w().m(0, Either(R64)).imm(Signed32);
    OR_RM64_IMM32 = one(0x81).w().m(1, Either(R64)).imm(Signed32);
    AND_RM64_IMM32 = one(0x81).w().m(4, Either(R64)).imm(Signed32);
    SUB_RM64_IMM32 = one(0x81).w().m(5, Either(R64)).imm(Signed32);
    XOR_RM64_IMM32 = one(0x81).w().m(6, Either(R64)).imm(Signed32);
    CMP_RM64_IMM32 = one(0x81).w().m(7, Either(R64)).imm(Signed32);
    TEST_RM64_R64 = one(0x85).w().mr(Either(R64), R64);
    TEST_RM8_IMM8 = one(0xf6).m(0, Either(R8)).imm(Byte);

    NEG_RM64 = one(0xf7).w().m(3, Either(R64));
    MUL_RM64 = one(0xf7).w().m(4, Either(R64));
    IDIV_RM64 = one(0xf7).w().m(7, Either(R64));
    IMUL_R64_RM64 = two(0xaf).w().rm(R64, Either(R64));
    IMUL_R64_RM64_IMM8 = one(0x6b).w().rm(R64, Either(R64)).imm(Signed8);
    IMUL_R64_RM64_IMM32 = one(0x69).w().rm(R64, Either(R64)).imm(Signed32);
    SHL_RM64_IMM8 = one(0xc1).w().m(4, Either(R64)).imm(Byte);
    SHR_RM64_IMM8 = one(0xc1).w().m(5, Either(R64)).imm(Byte);
    SAR_RM64_IMM8 = one(0xc1).w().m(7, Either(R64)).imm(Byte);
    ANDN_R64_R64_RM64 = vex(NP, M0F38, 0xf2).w().rvm(R64, R64, Either(R64));
    BZHI_R32_RM32_R32 = vex(NP, M0F38, 0xf5).rmv(R32, Either(R32), R32);

    PREFETCHT0_M8 = two(0x18).m(1, Memory);
    PREFETCHT1_M8 = two(0x18).m(2, Memory);
    VZEROUPPER = vex(NP, M0F, 0x77);

    KMOVW_KR_KM16 = vex(NP, M0F, 0x90).rm(K, Either(K));
    KMOVW_M16_KR = vex(NP, M0F, 0x91).mr(Memory, K);
    KMOVW_KR_R32 = vex(NP, M0F, 0x92).rm(K, Register(R32));
    KANDW_KR_KR_KR = vex(NP, M0F, 0x41).l().rvm(K, K, Register(K));
    KNOTW_KR_KR = vex(NP, M0F, 0x44).rm(K, Register(K));
    KORW_KR_KR_KR = vex(NP, M0F, 0x45).l().rvm(K, K, Register(K));
    KXNORW_KR_KR_KR = vex(NP, M0F, 0x46).l().rvm(K, K, Register(K));

    VMOVMSKPS_R32_XMM = vex(NP, M0F, 0x50).rm(R32, Register(X));
    VMOVMSKPS_R32_YMM = vex(NP, M0F, 0x50).l().rm(R32, Register(Y));
    VCVTSD2SI_R64_XMMM64 = vex(PF2, M0F, 0x2d).w().rm(R64, Either(X));
    VCVTTSD2SI_R64_XMMM64 = vex(PF2, M0F, 0x2c).w().rm(R64, Either(X));
    VCVTSI2SD_XMM_XMM_RM64 = vex(PF2, M0F, 0x2a).w().rvm(X, X, Either(R64));
    VCVTSI2SS_XMM_XMM_RM64 = vex(PF3, M0F, 0x2a).w().rvm(X, X, Either(R64));
}
