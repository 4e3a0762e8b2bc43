// SPDX-License-Identifier: Apache-2.0
//
// What steer.c needs of the kernel's BPF interface, and nothing more: with no
// header of the machine included, the object depends on the compiler alone.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// A map's BTF declaration: an attribute is the length of an array type.
#define ATTR(name, val) int(*name)[val]

// enum bpf_map_type
enum { MAP_HASH = 1, MAP_PERCPU_ARRAY = 6, MAP_LRU_HASH = 9, MAP_LPM_TRIE = 11, MAP_XSKMAP = 17 };

// enum xdp_action
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

// The context of an XDP program; the kernel rewrites the accesses.
struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

// Helper functions by their number in enum bpf_func_id.
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static long (*redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

// Network byte order on the little-endian machines that this is built for.
#define BE16(x) ((u16)((((x)&0xff) << 8) | (((x) >> 8) & 0xff)))
#define BE32(x) ((u32)__builtin_bswap32(x))
