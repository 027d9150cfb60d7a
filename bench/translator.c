/*
 * The rival of `bench/translator.ts`: the hot path of `src/translator` (its README is the contract) as a C
 * programmer would write it for speed, compiled by `cc -O2`. It does the same work, in the same order,
 * on the same packets:
 *
 *   1. headers are checked: version, lengths, IPv4 header checksum and options, fragment bits, TCP data
 *      offset, UDP length, ICMP errors and their quotes, and the virtio-net header against all of these
 *   2. (realm, source, destination) finds the path in an open-addressing hash table
 *   3. the path's policy, a list of rules, says whether protocol, side and port pass
 *   4. a UDP request opens or refreshes its session; a UDP reply needs a recent one
 *   5. the packet must fit the mtu of the realm it goes to
 *   6. addresses are written; checksums, complete or partial, follow by increment (RFC 1624); where the
 *      IP version changes, the header is replaced and the virtio-net header moves
 *   7. packet, bytes and verdict are counted
 *
 * What makes it fast is here: a path, with its key and its counters, is one cache line and stands in the
 * table's slot itself, so that one miss finds it (at more than twice the memory that the translator is
 * allowed); IP version and protocol are constants in the code of each; checksums are summed 32 bits at a
 * time in the byte order of the machine. What is not here: SIMD, threads, prefetching, huge pages.
 * Whatever is not hot is tested for and answered with SLOW: packets without a path, fragments, IPv6 extension
 * headers, other protocols, SYN (its MSS), too big, errors over IPv6 or from one IP version to the other.
 *
 * `translator-main.c` drives it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the scene files of bench/scene.ts are little-endian"
#endif

/* The numbers of src/translator/verdict.ts. */
enum verdict {
  FORWARD = 0, NEEDS_HEADROOM = 2, MALFORMED = 3, UNSUPPORTED = 4, NO_PRESENCE = 7,
  NOT_PERMITTED = 9, NO_SESSION = 10, TABLE_FULL = 12, SLOW = 13, VERDICTS
};
enum kind { ICMP = 1, TCP = 6, UDP = 17 };
enum side { REQUEST = 1, REPLY = 2 };
enum { VNET = 10, NEEDS_CSUM = 1, GSO_ECN = 0x80, GSO_TCPV4 = 1, GSO_UDP = 3, GSO_TCPV6 = 4, GSO_UDP_L4 = 5 };

/* So that what is known at the place of a call, and the fields of a `struct header`, are in registers. */
#define INLINE static inline __attribute__((always_inline))
/* Code that not every packet runs must not take registers from code that every packet runs. */
#define APART static __attribute__((noinline))

/* ---- Bytes: `load` and `store` keep the order of the packet, `big16` is the number it means ---- */

static inline uint16_t load16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline void store16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void store32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline uint16_t big16(const uint8_t *p) { return __builtin_bswap16(load16(p)); }

/* ---- One's complement sums, in packet order: RFC 1071 section 2 (B) ---- */

static inline uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)((sum & 0xffff) + (sum >> 16));
}
/* Of two 16-bit words. */
static inline uint16_t fold2(uint32_t sum) { return (uint16_t)(sum + (sum >> 16)); }
static inline uint16_t fold_delta(uint64_t sum) { uint16_t d = fold(sum); return d == 0xffff ? 0 : d; }
static inline uint64_t change(uint32_t before, uint32_t after) { return (uint64_t)(uint32_t)~before + after; }
/* RFC 1624 equation 3. */
static inline uint16_t adjust(uint16_t checksum, uint16_t delta) {
  return (uint16_t)~fold2((uint32_t)(uint16_t)~checksum + delta);
}
static inline uint64_t sum20(const uint8_t *p) {
  return (uint64_t)load32(p) + load32(p + 4) + load32(p + 8) + load32(p + 12) + load32(p + 16);
}

/* ---- Tables ---- */

struct path {
  uint16_t ingress; /* plus 1; 0 is a free slot */
  uint16_t egress;
  uint16_t delta;   /* of both addresses; from one IP version to the other, of the pseudo-header */
  uint16_t family;  /* of the packet as it leaves */
  uint32_t policy;  /* its first rule */
  uint32_t session; /* of requests; of replies it is this ^ 1 */
  uint64_t packets, bytes;
};
struct wide { uint8_t addresses[32]; }; /* IPv6 source and destination */
struct path4 {
  struct path path;
  uint32_t source, destination;
  union { struct { uint32_t source, destination; } narrow; struct wide *wide; } out;
} __attribute__((aligned(64)));
struct path6 {
  struct path path;
  struct wide key;
  union { struct { uint32_t source, destination; } narrow; struct wide wide; } out;
} __attribute__((aligned(64)));

/* A list ends with kind 0. Requests stand in front of replies: a packet that may be both is a request. */
struct rule { uint16_t kind, side, first, last; };
struct session { uint32_t pair, ports, seen; uint16_t kind, used; };
struct realm { uint32_t mtu; uint64_t verdicts[VERDICTS]; };

struct translator {
  uint32_t egress, start, end; /* after FORWARD, where the packet is */
  int32_t vnet;
  uint32_t now, udp_timeout, identification, realm_count, session_count, session_limit;
  uint64_t seed;
  struct path4 *paths4;
  struct path6 *paths6;
  struct session *sessions;
  int shift4, shift6, session_shift; /* 64 less the bits of the table's size */
  uint64_t mask4, mask6, session_mask;
  struct rule rules[16];
  struct realm realms[2];
};

/* Slots come from the high bits; the seed keeps others from choosing keys that collide. */
static inline uint64_t mix(uint64_t a, uint64_t b, uint64_t seed) {
  uint64_t h = (a ^ seed) * 0x9e3779b97f4a7c15u;
  h ^= h >> 32;
  return (h + b) * 0xd6e8feb86659fd93u;
}

/* The path's slot, or the free one where it would stand. */
static inline struct path4 *find4(struct translator *t, uint16_t realm, uint32_t source,
                                  uint32_t destination) {
  uint64_t mask = t->mask4;
  uint64_t slot = mix((uint64_t)source << 32 | destination, realm, t->seed) >> t->shift4;
  for (;; slot = (slot + 1) & mask) {
    struct path4 *p = &t->paths4[slot];
    if (p->source == source && p->destination == destination && p->path.ingress == realm + 1) return p;
    if (p->path.ingress == 0) return p;
  }
}
static inline struct path6 *find6(struct translator *t, uint16_t realm, const uint8_t *addresses) {
  uint64_t words[4], mask = t->mask6;
  memcpy(words, addresses, 32);
  uint64_t h = mix(words[0], words[1], t->seed);
  uint64_t slot = mix(words[2] ^ h >> 29, words[3] + realm, h) >> t->shift6;
  for (;; slot = (slot + 1) & mask) {
    struct path6 *p = &t->paths6[slot];
    if (p->path.ingress == realm + 1 && memcmp(p->key.addresses, addresses, 32) == 0) return p;
    if (p->path.ingress == 0) return p;
  }
}

/* Returns the side on which the packet passes, or 0. */
INLINE int allows(const struct rule *rule, uint32_t kind, int sides, uint32_t source, uint32_t destination) {
  for (; rule->kind != 0; rule++) {
    if (rule->kind != kind || (rule->side & sides) == 0) continue;
    uint32_t port = rule->side == REQUEST ? destination : source;
    if (port >= rule->first && port <= rule->last) return rule->side;
  }
  return 0;
}

/* Returns the session, or for a request (`open`) the slot it may have; NULL if there is neither. */
INLINE struct session *find_session(struct translator *t, uint32_t pair, uint32_t ports, uint16_t kind,
                                    int open) {
  uint64_t mask = t->session_mask;
  uint64_t slot = mix((uint64_t)pair << 32 | ports, kind, t->seed) >> t->session_shift;
  struct session *expired = NULL;
  for (;; slot = (slot + 1) & mask) {
    struct session *s = &t->sessions[slot];
    if (s->pair == pair && s->ports == ports && s->kind == kind && s->used) return s;
    if (s->used == 0) {
      if (!open || expired != NULL) return expired;
      return t->session_count < t->session_limit ? s : NULL;
    }
    if (open && expired == NULL && t->now - s->seen > t->udp_timeout) expired = s;
  }
}

/* ---- Headers ---- */

struct header {
  uint8_t *ip, *transport, *end; /* of a quote, the end of what was quoted */
  uint8_t *checksum;
  uint32_t headers; /* bytes, IP and transport */
  uint32_t source_port, destination_port, family, kind;
  uint32_t flags; /* of TCP, else 0 */
};

/* Source routes, record route and timestamps hold addresses. */
static enum verdict check_options(const uint8_t *p, const uint8_t *end) {
  while (p < end && *p != 0) {
    if (*p == 1) { p++; continue; }
    if (p + 1 >= end || p[1] < 2 || p + p[1] > end) return MALFORMED;
    if (*p == 7 || *p == 68 || *p == 131 || *p == 137) return UNSUPPORTED;
    p += p[1];
  }
  return FORWARD;
}

INLINE enum verdict parse_transport(struct header *h, int is_quote) {
  uint8_t *p = h->transport;
  uint32_t length = (uint32_t)(h->end - p);
  if (length < 8) return MALFORMED;
  h->flags = 0;
  if (h->kind == TCP) {
    if (!is_quote) {
      if (length < 20) return MALFORMED;
      uint32_t bytes = (p[12] >> 4) * 4u;
      if (bytes < 20 || bytes > length) return MALFORMED;
      h->headers = (uint32_t)(p - h->ip) + bytes;
      h->flags = p[13];
    }
    h->checksum = p + 16;
  } else if (h->kind == UDP) {
    if (!is_quote && big16(p + 4) != length) return MALFORMED;
    h->headers = (uint32_t)(p - h->ip) + 8;
    h->checksum = p + 6;
  } else {
    h->checksum = p + 2;
    return h->kind == ICMP && !is_quote && (*p == 3 || *p == 11 || *p == 12) ? FORWARD : SLOW;
  }
  h->source_port = big16(p);
  h->destination_port = big16(p + 2);
  return FORWARD;
}

/* A quote may be truncated, and its checksum is that of its last hop. */
INLINE enum verdict parse4(struct header *h, uint8_t *ip, uint32_t length, int is_quote) {
  if (length < 20) return MALFORMED;
  uint32_t bytes = (ip[0] & 15) * 4u, total = big16(ip + 2);
  if (bytes < 20 || bytes > length || total < bytes) return MALFORMED;
  if (!is_quote) {
    if (total != length) return MALFORMED;
    uint64_t sum = sum20(ip);
    for (uint32_t i = 20; i < bytes; i += 4) sum += load32(ip + i);
    if (fold(sum) != 0xffff) return MALFORMED;
  }
  if (bytes > 20) {
    enum verdict v = check_options(ip + 20, ip + bytes);
    if (v != FORWARD) return v;
  }
  if ((load16(ip + 6) & 0xff3f) != 0) return SLOW; /* more fragments, offset */
  h->family = 4;
  h->kind = ip[9];
  h->ip = ip;
  h->transport = ip + bytes;
  h->end = ip + (is_quote && total < length ? total : length);
  return FORWARD;
}

INLINE enum verdict parse6(struct header *h, uint8_t *ip, uint32_t length) {
  if (length < 40 || 40u + big16(ip + 4) != length) return MALFORMED;
  h->family = 6;
  h->kind = ip[6];
  h->ip = ip;
  h->transport = ip + 40;
  h->end = ip + length;
  return FORWARD;
}

INLINE enum verdict check_offload(const uint8_t *vnet, const struct header *h) {
  if (vnet + VNET > h->ip) return MALFORMED;
  if ((vnet[0] & ~3u) != 0) return MALFORMED; /* flags that no TUN has */
  uint32_t gso = vnet[1] & (uint32_t)~GSO_ECN;
  if (vnet[0] & NEEDS_CSUM) {
    if (h->kind == ICMP) return MALFORMED;
    if (h->ip + load16(vnet + 6) != h->transport) return MALFORMED;
    if (h->transport + load16(vnet + 8) != h->checksum) return MALFORMED;
  } else if (gso != 0) {
    return MALFORMED;
  }
  if (gso == 0) return FORWARD;
  if (load16(vnet + 4) == 0) return MALFORMED;
  switch (gso) {
    case GSO_TCPV4: return h->kind == TCP && h->family == 4 ? FORWARD : MALFORMED;
    case GSO_TCPV6: return h->kind == TCP && h->family == 6 ? FORWARD : MALFORMED;
    case GSO_UDP_L4: return h->kind == UDP ? FORWARD : MALFORMED;
    case GSO_UDP: return UNSUPPORTED;
    default: return MALFORMED;
  }
}

/* ---- Rewrite ---- */

INLINE void adjust_transport(const struct header *h, uint16_t delta, int is_partial) {
  uint16_t before = load16(h->checksum), after;
  if (is_partial) {
    after = fold2((uint32_t)before + delta);
  } else {
    after = adjust(before, delta);
    if (h->kind == UDP) {
      if (before == 0) return; /* RFC 768: no checksum, and a computed 0 is sent as all ones */
      if (after == 0) after = 0xffff;
    }
  }
  store16(h->checksum, after);
}

/* The virtio-net header moves with the packet's start, and its offsets with the header's length. */
static void move_start(struct translator *t, uint8_t *buffer, int32_t by) {
  t->start += (uint32_t)by;
  if (t->vnet < 0) return;
  uint8_t header[VNET];
  uint16_t grown = (uint16_t)-by;
  memcpy(header, buffer + t->vnet, VNET);
  if (load16(header + 2) != 0) store16(header + 2, load16(header + 2) + grown);
  if (header[0] & NEEDS_CSUM) store16(header + 6, load16(header + 6) + grown);
  int gso = header[1] & ~GSO_ECN;
  if (gso == GSO_TCPV4 || gso == GSO_TCPV6) header[1] ^= GSO_TCPV4 ^ GSO_TCPV6;
  t->vnet += by;
  memcpy(buffer + t->vnet, header, VNET);
}

/* RFC 7915 section 4.1. */
APART void write6(struct translator *t, uint8_t *buffer, uint8_t *transport, const struct wide *addresses) {
  const uint8_t *in = buffer + t->start;
  uint8_t *out = transport - 40;
  uint32_t first = 0x60000000u | (uint32_t)in[1] << 20;
  uint16_t payload = (uint16_t)(buffer + t->end - transport);
  uint8_t protocol = in[9], ttl = in[8];
  move_start(t, buffer, (int32_t)(out - in));
  store32(out, __builtin_bswap32(first));
  store16(out + 4, __builtin_bswap16(payload));
  out[6] = protocol;
  out[7] = ttl;
  memcpy(out + 8, addresses, 32);
}

/* RFC 7915 section 5.1. */
APART void write4(struct translator *t, uint8_t *buffer, uint8_t *transport, uint32_t source,
                  uint32_t destination) {
  const uint8_t *in = buffer + t->start;
  uint8_t *out = transport - 20;
  uint16_t total = (uint16_t)(20 + (buffer + t->end - transport));
  uint8_t traffic_class = (uint8_t)(big16(in) >> 4), protocol = in[6], hop_limit = in[7];
  /* A packet without DF needs an identification. */
  uint32_t fragment = 0x4000;
  if (total <= 1260) fragment = t->identification++ << 16;
  move_start(t, buffer, (int32_t)(out - in));
  uint32_t words[5] = {
      __builtin_bswap32(0x45000000u | (uint32_t)traffic_class << 16 | total),
      __builtin_bswap32(fragment),
      __builtin_bswap32((uint32_t)hop_limit << 24 | (uint32_t)protocol << 16), source, destination,
  };
  words[2] |= (uint32_t)(uint16_t)~fold(sum20((uint8_t *)words)) << 16;
  memcpy(out, words, 20);
}

/* The error (r, d) quotes (d, q): it takes the path of (q, d) and leaves as if q had sent it. */
APART enum verdict translate_error(struct translator *t, uint16_t realm, uint8_t *ip, uint8_t *icmp,
                                   uint8_t *packet_end) {
  struct header q;
  uint8_t *end = packet_end, *quoted = icmp + 8;
  if (icmp[5] != 0) { /* RFC 4884 */
    end = quoted + icmp[5] * 4;
    if (end > packet_end) return MALFORMED;
  }
  if (end - quoted < 20 || quoted[0] >> 4 != 4) return MALFORMED;
  enum verdict v = parse4(&q, quoted, (uint32_t)(end - quoted), 1);
  if (v == FORWARD) v = parse_transport(&q, 1);
  if (v != FORWARD) return v;
  uint32_t d = load32(ip + 16);
  if (load32(quoted + 12) != d) return MALFORMED;

  struct path4 *p = find4(t, realm, load32(quoted + 16), d);
  if (p->path.ingress == 0 || p->path.family != 4) return SLOW;
  const struct rule *rules = t->rules + p->path.policy;
  if (!allows(rules, q.kind, REQUEST | REPLY, q.destination_port, q.source_port)) return NOT_PERMITTED;
  uint32_t length = (uint32_t)(packet_end - ip);
  if (length > t->realms[p->path.egress].mtu) return SLOW;

  uint32_t source = p->out.narrow.source, destination = p->out.narrow.destination;
  uint16_t outer = fold_delta(change(load32(ip + 12), source) + change(d, destination));
  /* All that changes in the quote is summed up, and the ICMP checksum follows. */
  uint64_t changed = p->path.delta;
  uint16_t before = load16(quoted + 10), after = adjust(before, p->path.delta);
  store32(quoted + 12, destination);
  store32(quoted + 16, source);
  store16(quoted + 10, after);
  changed += (uint16_t)~before + after;
  if (q.checksum + 2 <= q.end) {
    before = load16(q.checksum);
    adjust_transport(&q, p->path.delta, 0);
    changed += (uint16_t)~before + load16(q.checksum);
  }
  store16(icmp + 2, adjust(load16(icmp + 2), fold_delta(changed)));
  store32(ip + 12, source);
  store32(ip + 16, destination);
  store16(ip + 10, adjust(load16(ip + 10), outer));
  p->path.packets++;
  p->path.bytes += length;
  t->egress = p->path.egress;
  return FORWARD;
}

/* ---- The call ---- */

/*
 * Steps 2 to 7 for one IP version and one protocol, which are constants in each place it is inlined into:
 * what is asked of them is not asked at run time.
 */
INLINE enum verdict process_as(struct translator *t, uint16_t realm, uint8_t *buffer, struct header *h,
                               int32_t vnet, uint32_t headroom, const uint32_t family, const uint32_t kind) {
  h->family = family;
  h->kind = kind;
  enum verdict v = parse_transport(h, 0);
  if (v != FORWARD) return v;
  uint32_t length = (uint32_t)(h->end - h->ip), leaving = length;
  int is_partial = 0;
  if (vnet >= 0) {
    v = check_offload(buffer + vnet, h);
    if (v != FORWARD) return v;
    is_partial = buffer[vnet] & NEEDS_CSUM;
    if ((buffer[vnet + 1] & ~GSO_ECN) != 0) leaving = h->headers + load16(buffer + vnet + 4);
  }
  if (kind == ICMP) return translate_error(t, realm, h->ip, h->transport, h->end);
  int has_checksum = kind != UDP || is_partial || load16(h->checksum) != 0;
  if (family == 6 && !has_checksum) return MALFORMED;

  struct path4 *p4 = NULL;
  struct path6 *p6 = NULL;
  struct path *path;
  if (family == 4) path = &(p4 = find4(t, realm, load32(h->ip + 12), load32(h->ip + 16)))->path;
  else path = &(p6 = find6(t, realm, h->ip + 8))->path;
  if (path->ingress == 0) return SLOW;

  int sides = (h->flags & 0x12) == 0x02 ? REQUEST : REQUEST | REPLY; /* SYN without ACK */
  int side = allows(t->rules + path->policy, kind, sides, h->source_port, h->destination_port);
  if (side == 0) return NOT_PERMITTED;
  if (kind == UDP && side == REPLY) {
    uint32_t ports = h->destination_port << 16 | h->source_port;
    struct session *session = find_session(t, path->session ^ 1, ports, UDP, 0);
    if (session == NULL || t->now - session->seen > t->udp_timeout) return NO_SESSION;
  }
  uint32_t header_before = (uint32_t)(h->transport - h->ip), header_after = header_before;
  if (path->family != family) {
    header_after = family == 4 ? 40 : 20;
    if (!has_checksum) return SLOW; /* it gets one */
    if (family == 4 && headroom < header_after - header_before) return NEEDS_HEADROOM;
  }
  if (leaving + header_after - header_before > t->realms[path->egress].mtu) return SLOW;
  if ((h->flags & 0x02) != 0) return SLOW;
  if (kind == UDP && side == REQUEST) {
    uint32_t ports = h->source_port << 16 | h->destination_port;
    struct session *session = find_session(t, path->session, ports, UDP, 1);
    if (session == NULL) return TABLE_FULL;
    if (!session->used) t->session_count++;
    *session = (struct session){path->session, ports, t->now, UDP, 1};
  }

  if (path->family != family) {
    if (family == 4) write6(t, buffer, h->transport, p4->out.wide);
    else write4(t, buffer, h->transport, p6->out.narrow.source, p6->out.narrow.destination);
  } else if (family == 4) {
    store32(h->ip + 12, p4->out.narrow.source);
    store32(h->ip + 16, p4->out.narrow.destination);
    store16(h->ip + 10, adjust(load16(h->ip + 10), path->delta));
  } else {
    memcpy(h->ip + 8, &p6->out.wide, 32);
  }
  adjust_transport(h, path->delta, is_partial);
  path->packets++;
  path->bytes += length;
  t->egress = path->egress;
  return FORWARD;
}

INLINE enum verdict process(struct translator *t, uint16_t realm, uint8_t *buffer, uint32_t size,
                            uint32_t start, uint32_t end, int32_t vnet, uint32_t headroom) {
  if (start > end || end > size || end - start < 20) return MALFORMED;
  t->start = start;
  t->end = end;
  t->vnet = vnet;
  struct header h;
  uint8_t *ip = buffer + start;
  if (ip[0] >> 4 == 4) {
    enum verdict v = parse4(&h, ip, end - start, 0);
    if (v != FORWARD) return v;
    if (h.kind == UDP) return process_as(t, realm, buffer, &h, vnet, headroom, 4, UDP);
    if (h.kind == TCP) return process_as(t, realm, buffer, &h, vnet, headroom, 4, TCP);
    if (h.kind == ICMP) return process_as(t, realm, buffer, &h, vnet, headroom, 4, ICMP);
    return SLOW;
  }
  if (ip[0] >> 4 == 6) {
    enum verdict v = parse6(&h, ip, end - start);
    if (v != FORWARD) return v;
    if (h.kind == UDP) return process_as(t, realm, buffer, &h, vnet, headroom, 6, UDP);
    if (h.kind == TCP) return process_as(t, realm, buffer, &h, vnet, headroom, 6, TCP);
    return SLOW;
  }
  return MALFORMED;
}

/* A call as it is into a library: neither inlined nor made to measure for its callers. */
__attribute__((noinline, noclone))
enum verdict translate(struct translator *t, uint16_t realm, uint8_t *buffer, uint32_t size, uint32_t start,
                       uint32_t end, int32_t vnet, uint32_t headroom) {
  if (realm >= t->realm_count) return NO_PRESENCE;
  enum verdict v = process(t, realm, buffer, size, start, end, vnet, headroom);
  t->realms[realm].verdicts[v]++;
  return v;
}
