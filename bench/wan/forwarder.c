/*
 * A wan between two TUN interfaces: delay, random loss, and a link of a limited rate with a bounded
 * buffer in front of it, the same in both directions.
 *
 *     forwarder a=NAME b=NAME delayUs=N lossPpm=N rate=BITS_A_SECOND queue=BYTES seed=N offload=0|1
 *
 * It makes both interfaces and says "ready"; each may then be moved to another network namespace. A line
 * on standard input is answered by the counters, as one line of JSON; the end of standard input ends it.
 *
 * The path of a packet in one direction:
 *
 * 1. it is read to the end of the line, and its segments are counted: with offloads the kernel hands
 *    over what a network card would get, a TCP super-packet
 * 2. each segment is judged alone, as the packet it is on the link: what does not fit the buffer is
 *    dropped; what fits takes the link for its length; then it may be lost
 * 3. segments that survive side by side, and leave the link within COALESCE_NS, are one run
 * 4. when a run has waited for the delay, it is written: a whole packet as it came, a part of one
 *    with headers of its own. So a card with receive offload would hand it over
 *
 * The delay is constant, so the line is a FIFO.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
	VNET = 10,
	LONGEST = VNET + 65535,
	BATCH = 64,
	RUNS = 1 << 17,
	COALESCE_NS = 100000,
};

struct options {
	const char *a, *b;
	uint64_t delay_ns, loss_ppm, rate, queue, seed, offload;
};

/* Segments `first` to `first + count - 1` of the packet at `at`. */
struct run {
	uint64_t due;
	uint32_t at, length;
	uint16_t first, count, of;
	/* The last of its packet: the packet's room is free when it has been written. */
	bool is_last;
};

struct counters {
	uint64_t forwarded, bytes, lost, overflowed, refused, unroomed, greatest_queue, greatest_late_ns;
};

struct direction {
	int in, out;
	uint64_t random;
	/* When the link will have sent what waits for it. */
	uint64_t clear_at;
	uint8_t *line;
	/* Offsets in the line: where the next packet goes, and the oldest one that is kept. */
	uint32_t size, head, tail;
	struct run *runs;
	uint32_t first_run, end_run;
	struct counters counters;
};

static void forward(struct direction *directions);
static int read_batch(struct direction *direction);
static void deliver(struct direction *direction, uint64_t now);
static void fail(const char *what);

static struct options options;
static bool is_cut;

/* ---- set-up ---- */

static uint64_t option(int argc, char **argv, const char *name, const char **text)
{
	size_t length = strlen(name);
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], name, length) || argv[i][length] != '=')
			continue;
		if (text)
			*text = argv[i] + length + 1;
		return strtoull(argv[i] + length + 1, NULL, 10);
	}
	fprintf(stderr, "forwarder: %s=... is missing\n", name);
	exit(2);
}

static int open_tun(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int size = VNET;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &size))
		fail(name);
	if (ioctl(fd, TUNSETOFFLOAD, options.offload ? TUN_F_CSUM | TUN_F_TSO4 : 0))
		fail("TUNSETOFFLOAD");
	return fd;
}

static void open_direction(struct direction *direction, int in, int out, uint64_t seed)
{
	/* As long as 20 Gbit/s fill it: the line never decides what is dropped. */
	uint64_t size = options.delay_ns * 5 / 2 + options.queue + 64 * LONGEST;
	*direction = (struct direction){
		.in = in, .out = out, .random = seed * 2654435761 + 88172645463325252, .size = size};
	direction->line = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	direction->runs = calloc(RUNS, sizeof *direction->runs);
	if (direction->line == MAP_FAILED || !direction->runs)
		fail("memory");
}

int main(int argc, char **argv)
{
	static struct direction directions[2];
	option(argc, argv, "a", &options.a);
	option(argc, argv, "b", &options.b);
	options.delay_ns = option(argc, argv, "delayUs", NULL) * 1000;
	options.loss_ppm = option(argc, argv, "lossPpm", NULL);
	options.rate = option(argc, argv, "rate", NULL);
	options.queue = option(argc, argv, "queue", NULL);
	options.seed = option(argc, argv, "seed", NULL);
	options.offload = option(argc, argv, "offload", NULL);
	int a = open_tun(options.a), b = open_tun(options.b);
	open_direction(&directions[0], a, b, options.seed);
	open_direction(&directions[1], b, a, options.seed + 1);
	prctl(PR_SET_TIMERSLACK, 1000);
	/* Where that is allowed: a wan does not wait for the machines at its ends. */
	setpriority(PRIO_PROCESS, 0, -10);
	puts("ready");
	fflush(stdout);
	forward(directions);
	return 0;
}

/* ---- the loop ---- */

static uint64_t clock_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void report(struct direction *directions)
{
	for (int i = 0; i < 2; i++) {
		struct counters *c = &directions[i].counters;
		printf("%s{\"forwarded\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"lost\":%" PRIu64
		       ",\"overflowed\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"unroomed\":%" PRIu64
		       ",\"greatestQueue\":%" PRIu64 ",\"greatestLateUs\":%" PRIu64 "}%s",
		       i ? "," : "[", c->forwarded, c->bytes, c->lost, c->overflowed, c->refused,
		       c->unroomed, c->greatest_queue, c->greatest_late_ns / 1000, i ? "]\n" : "");
		/* These two are of the time since the last question. */
		c->greatest_queue = c->greatest_late_ns = 0;
	}
	fflush(stdout);
}

static void forward(struct direction *directions)
{
	struct pollfd fds[] = {{.fd = directions[0].in, .events = POLLIN},
			       {.fd = directions[1].in, .events = POLLIN},
			       {.fd = STDIN_FILENO, .events = POLLIN}};
	char line[256];
	for (;;) {
		uint64_t now = clock_ns(), next = now + 1000000000;
		for (int i = 0; i < 2; i++) {
			struct direction *d = &directions[i];
			deliver(d, now);
			if (d->first_run != d->end_run && d->runs[d->first_run].due < next)
				next = d->runs[d->first_run].due;
		}
		if (read_batch(&directions[0]) + read_batch(&directions[1]) > 0)
			continue;
		now = clock_ns();
		uint64_t wait = next > now ? next - now : 0;
		struct timespec timeout = {wait / 1000000000, wait % 1000000000};
		if (ppoll(fds, 3, &timeout, NULL) < 0 && errno != EINTR)
			fail("poll");
		if (fds[2].revents) {
			if (read(STDIN_FILENO, line, sizeof line) <= 0)
				return;
			is_cut = line[0] == '-' || (is_cut && line[0] != '+');
			report(directions);
		}
	}
}

/* ---- 1 to 3: from the interface to the line ---- */

struct shape {
	/* IP and TCP headers of a super-packet; 0 of any other packet, which is one segment. */
	uint32_t headers;
	uint32_t segment, segments, bytes;
};

static struct shape shape_of(const uint8_t *frame, uint32_t length)
{
	const struct virtio_net_hdr *vnet = (const void *)frame;
	const struct iphdr *ip = (const void *)(frame + VNET);
	struct shape shape = {.segments = 1, .bytes = length - VNET};
	if ((vnet->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) != VIRTIO_NET_HDR_GSO_TCPV4 || !vnet->gso_size)
		return shape;
	const struct tcphdr *tcp = (const void *)((const uint8_t *)ip + ip->ihl * 4);
	shape.headers = ip->ihl * 4 + tcp->doff * 4;
	shape.segment = vnet->gso_size;
	shape.segments = (shape.bytes - shape.headers + shape.segment - 1) / shape.segment;
	return shape;
}

static uint32_t bytes_of(const struct shape *shape, uint32_t i)
{
	if (i + 1 < shape->segments)
		return shape->headers + shape->segment;
	return shape->bytes - (shape->segments - 1) * shape->segment;
}

static bool is_lost(struct direction *direction)
{
	uint64_t x = direction->random;
	x ^= x << 13;
	x ^= x >> 7;
	direction->random = x ^= x << 17;
	/* The upper bits, as a fraction of 2^32. */
	return (x >> 32) * 1000000 >> 32 < options.loss_ppm;
}

/* Whether the segment gets past the link; if so, at `clear_at`. */
static bool pass_link(struct direction *direction, uint32_t bytes, uint64_t now)
{
	if (direction->clear_at < now)
		direction->clear_at = now;
	if (options.rate) {
		uint64_t queue = (direction->clear_at - now) * options.rate / 8000000000ull + bytes;
		if (queue > options.queue) {
			direction->counters.overflowed++;
			return false;
		}
		if (queue > direction->counters.greatest_queue)
			direction->counters.greatest_queue = queue;
		direction->clear_at += bytes * 8000000000ull / options.rate;
	}
	if (is_lost(direction) || is_cut) {
		direction->counters.lost++;
		return false;
	}
	direction->counters.forwarded++;
	direction->counters.bytes += bytes;
	return true;
}

static void take(struct direction *direction, uint32_t at, uint32_t length, uint64_t now)
{
	struct shape shape = shape_of(direction->line + at, length);
	uint32_t begin = direction->end_run;
	struct run *run = NULL;
	uint64_t opened = 0;
	for (uint32_t i = 0; i < shape.segments; i++) {
		if (!pass_link(direction, bytes_of(&shape, i), now)) {
			run = NULL;
			continue;
		}
		if (!run || direction->clear_at - opened > COALESCE_NS) {
			run = &direction->runs[direction->end_run];
			direction->end_run = (direction->end_run + 1) % RUNS;
			*run = (struct run){.at = at, .length = length, .first = i, .of = shape.segments};
			opened = direction->clear_at;
		}
		run->count++;
		run->due = direction->clear_at + options.delay_ns;
	}
	if (direction->end_run == begin)
		return;
	direction->runs[(direction->end_run + RUNS - 1) % RUNS].is_last = true;
	direction->head = at + length;
}

/* Returns a place for a packet of any length; -1 if there is none. */
static int64_t room_of(struct direction *direction)
{
	uint32_t head = direction->head, tail = direction->tail;
	uint32_t used_runs = (direction->end_run + RUNS - direction->first_run) % RUNS;
	/* A packet may become as many runs as it has segments. */
	if (used_runs + 2000 > RUNS)
		return -1;
	if (!used_runs)
		return direction->head = direction->tail = 0;
	if (head > tail) {
		if (head + LONGEST <= direction->size)
			return head;
		head = 0;
	}
	if (head + LONGEST < tail)
		return head;
	return -1;
}

static int read_batch(struct direction *direction)
{
	static uint8_t scrap[LONGEST];
	int count = 0;
	for (; count < BATCH; count++) {
		int64_t at = room_of(direction);
		uint8_t *buffer = at < 0 ? scrap : direction->line + at;
		ssize_t length = read(direction->in, buffer, LONGEST);
		if (length < 0 && errno == EAGAIN)
			break;
		if (length <= VNET)
			fail("read");
		if (at < 0)
			direction->counters.unroomed++;
		else
			take(direction, at, length, clock_ns());
	}
	return count;
}

/* ---- 4: from the line to the interface ---- */

static uint32_t sum(const void *words, uint32_t length)
{
	const uint16_t *word = words;
	uint32_t total = 0;
	for (uint32_t i = 0; i < length / 2; i++)
		total += word[i];
	return total;
}

static uint16_t folded(uint32_t total)
{
	total = (total & 0xffff) + (total >> 16);
	return (total & 0xffff) + (total >> 16);
}

/* Headers of a part of a super-packet, as the card's segmentation makes them. */
static uint32_t part_headers(uint8_t *headers, const uint8_t *frame, const struct run *run,
			     const struct shape *shape, uint32_t payload)
{
	memcpy(headers, frame, VNET + shape->headers);
	struct virtio_net_hdr *vnet = (void *)headers;
	struct iphdr *ip = (void *)(headers + VNET);
	struct tcphdr *tcp = (void *)(headers + VNET + ip->ihl * 4);
	bool has_end = run->first + run->count == run->of;
	/* The kernel says here how much of the packet is in one piece, which may be more than the part has. */
	vnet->hdr_len = shape->headers;
	if (payload <= shape->segment) {
		vnet->gso_type = VIRTIO_NET_HDR_GSO_NONE;
		vnet->gso_size = 0;
	}
	ip->tot_len = htons(shape->headers + payload);
	ip->id = htons(ntohs(ip->id) + run->first);
	ip->check = 0;
	ip->check = ~folded(sum(ip, ip->ihl * 4));
	tcp->seq = htonl(ntohl(tcp->seq) + run->first * shape->segment);
	tcp->fin &= has_end;
	tcp->psh &= has_end;
	if (run->first)
		tcp->res2 &= ~2; /* CWR belongs to the first segment alone */
	/* Partial: the sum of the pseudo-header, not complemented. */
	tcp->check = folded(sum(&ip->saddr, 8) + htons(IPPROTO_TCP) +
			    htons(tcp->doff * 4 + payload));
	return VNET + shape->headers;
}

static bool write_run(struct direction *direction, const struct run *run)
{
	uint8_t headers[VNET + 120];
	uint8_t *frame = direction->line + run->at;
	if (run->count == run->of)
		return write(direction->out, frame, run->length) >= 0;
	struct shape shape = shape_of(frame, run->length);
	uint32_t skipped = run->first * shape.segment;
	uint32_t payload = shape.bytes - shape.headers - skipped;
	if (payload > run->count * shape.segment)
		payload = run->count * shape.segment;
	struct iovec parts[] = {
		{headers, part_headers(headers, frame, run, &shape, payload)},
		{frame + VNET + shape.headers + skipped, payload},
	};
	return writev(direction->out, parts, 2) >= 0;
}

static void deliver(struct direction *direction, uint64_t now)
{
	while (direction->first_run != direction->end_run) {
		struct run *run = &direction->runs[direction->first_run];
		if (run->due > now)
			return;
		if (now - run->due > direction->counters.greatest_late_ns)
			direction->counters.greatest_late_ns = now - run->due;
		if (is_cut)
			direction->counters.lost += run->count;
		else if (!write_run(direction, run))
			direction->counters.refused++;
		if (run->is_last)
			direction->tail = run->at + run->length;
		direction->first_run = (direction->first_run + 1) % RUNS;
	}
}

static void fail(const char *what)
{
	fprintf(stderr, "forwarder: %s: %s\n", what, strerror(errno));
	exit(1);
}
