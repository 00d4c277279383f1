/* Which instructions this processor has, and the operating system lets it use. */
#include "lap_internal.h"
#include "os.h"

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t xgetbv0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static int all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }
#define BIT(n) (1u << (n))

static uint64_t detect(void) {
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0, unused;
    uint64_t features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (all(c, BIT(0) | BIT(9) | BIT(19) | BIT(20) | BIT(23))) features |= LAPIDARY_CPU_X86_V2;
    if (!all(c, BIT(27)) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return features; /* no OSXSAVE */
    if (a >= 1) __cpuid_count(7, 1, a71, unused, unused, unused);
    (void)unused;
    uint64_t state = xgetbv0();
    int ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
    if (ymm && all(c, BIT(12) | BIT(28) | BIT(29)) && all(b7, BIT(3) | BIT(5) | BIT(8))) {
        features |= LAPIDARY_CPU_AVX2;
        if (all(a71, BIT(4))) features |= LAPIDARY_CPU_AVX_VNNI;
    }
    if (zmm && (features & LAPIDARY_CPU_AVX2) && all(b7, BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31))) {
        features |= LAPIDARY_CPU_AVX512;
        if (all(c7, BIT(11))) features |= LAPIDARY_CPU_AVX512_VNNI;
        if (all(c7, BIT(1))) features |= LAPIDARY_CPU_AVX512_VBMI;
        if (all(a71, BIT(5))) features |= LAPIDARY_CPU_AVX512_BF16;
        if (all(d7, BIT(23))) features |= LAPIDARY_CPU_AVX512_FP16;
    }
    if (tiles && all(d7, BIT(24)) && lap_os_grant_amx()) {
        features |= LAPIDARY_CPU_AMX_TILE;
        if (all(d7, BIT(22))) features |= LAPIDARY_CPU_AMX_BF16;
        if (all(d7, BIT(25))) features |= LAPIDARY_CPU_AMX_INT8;
    }
    return features;
}
#else
static uint64_t detect(void) { return lap_os_arm_features(); }
#endif

uint64_t lap_cpu_features(void) {
    static _Atomic uint64_t known; /* bit 63: asked */
    uint64_t features = atomic_load_explicit(&known, memory_order_acquire);
    if (!features) {
        features = detect() | 1ull << 63;
        atomic_store_explicit(&known, features, memory_order_release);
    }
    return features & ~(1ull << 63);
}
