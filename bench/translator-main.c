/*
 * Drives `translator.c` for `bench/translator.ts`, which writes the SCENE: who is there, and the packets.
 *
 *   translator SCENE          reads a number of milliseconds per line, prints ns per packet for each
 *   translator SCENE FRAMES   translates the frames of a file and writes what became of them
 *
 * A scene is a file of 32-bit words; `Scene.encode` in `scene.ts` writes what `read_scene` reads.
 * Addresses are in the order of the packet.
 */
#include "translator.c"

/* Where the two ends of a session stand in one realm; an IPv4 address is the last of its four words. */
struct side_of_session {
  uint32_t family;
  uint32_t client[4];  /* the last word is each client's own */
  uint32_t service[4];
  const uint32_t *clients;       /* in the order of the plan */
  const uint32_t *clients_taken; /* in the order they take turns */
};

struct scene {
  uint32_t client_count, schedule_length, is_error, buffer_length, headroom;
  int32_t shift; /* bytes that a packet forth moves by */
  struct side_of_session near, far;
  const uint32_t *schedule; /* where the packet of each turn is: its start in cache lines, its length */
  uint8_t *buffer;
  struct translator *translator;
};

static uint32_t *read_file(const char *name, size_t *length) {
  FILE *file = fopen(name, "rb");
  if (file == NULL) { perror(name); exit(1); }
  fseek(file, 0, SEEK_END);
  *length = (size_t)ftell(file);
  rewind(file);
  uint32_t *words = malloc(*length + 4);
  if (words == NULL || fread(words, 1, *length, file) != *length) exit(1);
  fclose(file);
  return words;
}

static void *zeroed(size_t count, size_t size) {
  void *memory = aligned_alloc(64, (count * size + 63) & ~(size_t)63);
  if (memory == NULL) exit(1);
  return memset(memory, 0, count * size);
}

/* Bits of a table that is at most half full. */
static int bits_for(uint32_t count) {
  int bits = 4;
  while ((1ull << bits) < 2ull * count) bits++;
  return bits;
}

static void address(uint32_t out[4], const uint32_t words[4], uint32_t last) {
  memcpy(out, words, 12);
  out[3] = last;
}

static void add_path(struct translator *t, uint32_t realm, uint32_t family, const uint32_t source[4],
                     const uint32_t destination[4], uint32_t policy, uint32_t session, uint32_t new_family,
                     const uint32_t new_source[4], const uint32_t new_destination[4], struct wide *wide) {
  uint64_t sum = 0;
  for (int i = family == 4 ? 3 : 0; i < 4; i++) {
    sum += (uint64_t)(uint32_t)~source[i] + (uint32_t)~destination[i];
  }
  for (int i = new_family == 4 ? 3 : 0; i < 4; i++) sum += (uint64_t)new_source[i] + new_destination[i];
  struct path path = {(uint16_t)(realm + 1), (uint16_t)(realm ^ 1), fold_delta(sum), (uint16_t)new_family,
                      policy, session, 0, 0};
  struct wide key, out;
  memcpy(key.addresses, source, 16);
  memcpy(key.addresses + 16, destination, 16);
  memcpy(out.addresses, new_source, 16);
  memcpy(out.addresses + 16, new_destination, 16);
  if (family == 4) {
    struct path4 *p = find4(t, (uint16_t)realm, source[3], destination[3]);
    *p = (struct path4){.path = path, .source = source[3], .destination = destination[3]};
    if (new_family == 6) {
      *wide = out;
      p->out.wide = wide;
    } else {
      p->out.narrow.source = new_source[3];
      p->out.narrow.destination = new_destination[3];
    }
  } else {
    struct path6 *p = find6(t, (uint16_t)realm, key.addresses);
    *p = (struct path6){.path = path, .key = key};
    if (new_family == 6) {
      p->out.wide = out;
    } else {
      p->out.narrow.source = new_source[3];
      p->out.narrow.destination = new_destination[3];
    }
  }
}

static const uint32_t *read_side(struct side_of_session *side, const uint32_t *words, uint32_t client_count) {
  side->family = *words++;
  memcpy(side->client, words, 16);
  memcpy(side->service, words + 4, 16);
  side->clients = words + 8;
  side->clients_taken = side->clients + client_count;
  return side->clients_taken + client_count;
}

static void read_scene(struct scene *s, const uint32_t *words) {
  struct translator *t = s->translator = zeroed(1, sizeof *t);
  s->client_count = *words++;
  s->schedule_length = *words++;
  s->is_error = *words++;
  s->buffer_length = *words++;
  s->headroom = *words++;
  s->shift = (int32_t)*words++;
  t->realms[0].mtu = t->realms[1].mtu = *words++;
  t->udp_timeout = *words++;
  t->session_limit = *words++;
  uint32_t rule_count = *words++;
  for (uint32_t i = 0; i < rule_count; i++, words += 4) {
    t->rules[i] = (struct rule){(uint16_t)words[0], (uint16_t)words[1], (uint16_t)words[2], (uint16_t)words[3]};
  }
  uint32_t policy_forth = *words++, policy_back = *words++;
  words = read_side(&s->near, words, s->client_count);
  words = read_side(&s->far, words, s->client_count);
  s->schedule = words;
  s->buffer = zeroed(s->buffer_length, 1);
  memcpy(s->buffer, s->schedule + s->schedule_length, s->buffer_length);

  t->realm_count = 2;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->seed = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u;
  uint32_t paths4 = s->client_count * ((s->near.family == 4) + (s->far.family == 4));
  t->shift4 = 64 - bits_for(paths4);
  t->shift6 = 64 - bits_for(2 * s->client_count - paths4);
  t->session_shift = 64 - bits_for(t->session_limit);
  t->mask4 = (1ull << (64 - t->shift4)) - 1;
  t->mask6 = (1ull << (64 - t->shift6)) - 1;
  t->session_mask = (1ull << (64 - t->session_shift)) - 1;
  t->paths4 = zeroed(t->mask4 + 1, sizeof *t->paths4);
  t->paths6 = zeroed(t->mask6 + 1, sizeof *t->paths6);
  t->sessions = zeroed(t->session_mask + 1, sizeof *t->sessions);
  struct wide *wide = zeroed(s->client_count, sizeof *wide);
  for (uint32_t i = 0; i < s->client_count; i++) {
    const struct side_of_session *near = &s->near, *far = &s->far;
    uint32_t near_client[4], far_client[4];
    address(near_client, near->client, near->clients[i]);
    address(far_client, far->client, far->clients[i]);
    add_path(t, 0, near->family, near_client, near->service, policy_forth, 2 * i, far->family, far_client,
             far->service, &wide[i]);
    add_path(t, 1, far->family, far->service, far_client, policy_back, 2 * i + 1, near->family, near->service,
             near_client, &wide[i]);
  }
}

enum { BATCH = 16, TRIPS_PER_LOOK_AT_THE_CLOCK = 320 * BATCH };

/* Writes the addresses into a batch: of client `client`, and of the next ones. */
static void put(const struct scene *s, uint32_t turn, const struct side_of_session *side, uint32_t client,
                int is_forth) {
  uint8_t *buffer = s->buffer + (is_forth ? 0 : s->shift);
  for (uint32_t n = 0; n < BATCH; n++) {
    uint8_t *ip = buffer + (s->schedule[turn + n] >> 16) * 64;
    uint32_t word = side->clients_taken[client];
    if (++client == s->client_count) client = 0;
    if (side->family == 4) {
      uint32_t source = is_forth ? word : side->service[3], destination = is_forth ? side->service[3] : word;
      store32(ip + 12, source);
      store32(ip + 16, destination);
      if (s->is_error) { /* it quotes what the other end has sent */
        store32(ip + 40, destination);
        store32(ip + 44, source);
      }
    } else {
      memcpy(ip + (is_forth ? 8 : 24), side->client, 12);
      store32(ip + (is_forth ? 20 : 36), word);
      memcpy(ip + (is_forth ? 24 : 8), side->service, 16);
    }
  }
}

/*
 * Translates a batch; returns how many packets were not forwarded, or not from where and to where they
 * should be.
 */
static uint32_t translate_batch(const struct scene *s, uint16_t realm, uint32_t turn, int32_t shift,
                                int32_t new_shift) {
  struct translator *t = s->translator;
  uint32_t failures = 0;
  for (uint32_t n = 0; n < BATCH; n++) {
    uint32_t place = s->schedule[turn + n], start = (place >> 16) * 64, end = start + (place & 0xffff);
    uint32_t from = start + (uint32_t)shift, to = start + (uint32_t)new_shift;
    int32_t vnet = (int32_t)from - VNET;
    enum verdict v = translate(t, realm, s->buffer, s->buffer_length, from, end, vnet, s->headroom);
    failures += v != FORWARD || t->start != to || t->end != end || t->vnet != (int32_t)to - VNET;
  }
  return failures;
}

/* Forth for a batch of clients and then back for the same. */
static uint32_t run_batch(struct scene *s, uint32_t turn, uint32_t client) {
  put(s, turn, &s->near, client, 1);
  uint32_t failures = translate_batch(s, 0, turn, 0, s->shift);
  put(s, turn, &s->far, client, 0);
  return failures + translate_batch(s, 1, turn, s->shift, 0);
}

static double milliseconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* Clients take turns for the time given; returns ns of CPU time per packet. */
static double run(struct scene *s, double least) {
  static uint32_t turn = 0, client = 0;
  uint32_t failures = 0, trips = 0;
  double from = milliseconds(CLOCK_PROCESS_CPUTIME_ID), elapsed;
  do {
    for (int n = 0; n < TRIPS_PER_LOOK_AT_THE_CLOCK; n += BATCH) {
      failures += run_batch(s, turn, client);
      turn = (turn + BATCH) % s->schedule_length;
      client = (client + BATCH) % s->client_count;
    }
    trips += TRIPS_PER_LOOK_AT_THE_CLOCK;
    elapsed = milliseconds(CLOCK_PROCESS_CPUTIME_ID) - from;
    s->translator->now = (uint32_t)milliseconds(CLOCK_MONOTONIC);
  } while (elapsed < least);
  if (failures > 0) {
    fprintf(stderr, "%u packets were not forwarded\n", failures);
    exit(1);
  }
  return elapsed * 1e6 / (2.0 * trips);
}

/* A frame is its realm and its length, then a virtio-net header and the packet, filled up to words. */
static void translate_frames(struct scene *s, const uint32_t *words, size_t length) {
  const uint32_t *end = words + length / 4;
  uint32_t room = 1 << 17, at = 64;
  uint8_t *buffer = zeroed(room, 1);
  while (words < end) {
    uint32_t realm = words[0], bytes = words[1];
    struct translator *t = s->translator;
    memcpy(buffer + at, words + 2, bytes);
    words += 2 + (bytes + 3) / 4;
    uint32_t verdict =
        translate(t, (uint16_t)realm, buffer, room, at + VNET, at + bytes, (int32_t)at, s->headroom);
    uint32_t vnet = at, packet_end = at + bytes;
    if (verdict == FORWARD) {
      vnet = (uint32_t)t->vnet;
      packet_end = t->end;
      if (t->start != vnet + VNET) exit(1);
    }
    uint32_t head[3] = {verdict, verdict == FORWARD ? t->egress : 0, packet_end - vnet};
    fwrite(head, 4, 3, stdout);
    fwrite(buffer + vnet, 1, (packet_end - vnet + 3) & ~3u, stdout);
  }
}

int main(int count, char **arguments) {
  if (count < 2) return 2;
  struct scene scene = {0};
  size_t length;
  read_scene(&scene, read_file(arguments[1], &length));
  if (count > 2) {
    const uint32_t *frames = read_file(arguments[2], &length);
    translate_frames(&scene, frames, length);
    return 0;
  }
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    printf("%.4f\n", run(&scene, atof(line)));
    fflush(stdout);
  }
  return 0;
}
