/**
 * A hostile site with services that sends unsolicited segments to every client of another site that it can
 * address. The cloud's data plane is the real one with its defaults; the clock is the test's, because a start
 * takes two minutes.
 */
import { describe, expect, test } from 'vitest';
import { CloudDataPlane } from '../../src/dataplane/index.ts';
import { PacketTranslator, type TranslationPlanInput } from '../../src/translator/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeTunnel } from '../support/fake-tunnel.ts';
import { tcpPacket } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';
import { framed } from '../support/vnet.ts';

const SERVICES = 128;
const CLIENTS = 1024;
const PORT = 9000;
const RST = 0x04;
const ACK = 0x10;
/** Passes the time until the start is over for both sites. */
const GRACE_MS = 120_000;

const service = (n: number): string => `10.0.1.${n}`;
const client = (n: number): string => `10.0.${16 + (n >> 8)}.${n & 255}`;
/** Returns the address of a host of one site in the other one. */
const serviceAtB = (n: number): string => `10.64.1.${n}`;
const clientAtA = (n: number): string => `10.64.${16 + (n >> 8)}.${n & 255}`;

const PLAN: TranslationPlanInput = {
  realms: ['cloud', 'site-a', 'site-b'].map((name) => ({
    name,
    sources: ['10.0.0.0/10'],
    pools: ['10.64.0.0/10'],
  })),
  presences: [
    ...Array.from({ length: SERVICES }, (_, n) => ({
      realm: 'site-b',
      address: serviceAtB(n),
      of: { realm: 'site-a', address: service(n) },
    })),
    ...Array.from({ length: CLIENTS + 1 }, (_, n) => ({
      realm: 'site-a',
      address: clientAtA(n),
      of: { realm: 'site-b', address: client(n) },
    })),
  ],
  permits: Array.from({ length: SERVICES }, (_, n) => ({
    realm: 'site-b',
    service: { realm: 'site-a', address: service(n) },
    ports: [`tcp/${PORT}`],
  })),
};

class Scene {
  readonly translator = new PacketTranslator();
  readonly clock = new FakeClock();
  /** The packets that came to each site. */
  readonly received = { 'site-a': 0, 'site-b': 0 };
  /** The cloud's ends of the tunnels. */
  readonly #tunnels: Record<'site-a' | 'site-b', FakeTunnel>;

  constructor() {
    this.translator.load(PLAN);
    const plane = new CloudDataPlane({
      cloud: 'cloud',
      device: new TestDevice().device,
      translator: this.translator,
      admit: () => Promise.reject(new Error('there is no new client')),
      clock: this.clock,
    });
    plane.start();
    const attach = (site: 'site-a' | 'site-b'): FakeTunnel => {
      const [edge, cloud] = FakeTunnel.pair(site, Number.POSITIVE_INFINITY);
      plane.attach(site, cloud);
      edge.onPacket = () => {
        this.received[site]++;
      };
      return cloud;
    };
    this.#tunnels = { 'site-a': attach('site-a'), 'site-b': attach('site-b') };
  }

  send(site: 'site-a' | 'site-b', frames: Iterable<Uint8Array>): void {
    const { onPacket, onBatchEnd } = this.#tunnels[site];
    for (const frame of frames) {
      onPacket(Buffer.from(frame), 0, frame.length);
      onBatchEnd();
      for (const tunnel of Object.values(this.#tunnels)) tunnel.deliver();
    }
  }

  /** A client of site-b sends something on a connection to a service of site-a. */
  request(clientNumber: number, serviceNumber: number): void {
    const ends = { source: client(clientNumber), destination: serviceAtB(serviceNumber) };
    const ports = { sourcePort: 40_000, destinationPort: PORT };
    this.send('site-b', [framed(tcpPacket(ends, { ...ports, flags: ACK }))]);
  }

  answer(serviceNumber: number, clientNumber: number, flags = ACK): void {
    this.send('site-a', [segment(serviceNumber, clientNumber, flags)]);
  }

  verdicts(site: string): Record<string, number> {
    return this.translator.counters(this.translator.realm(site));
  }
}

function segment(serviceNumber: number, clientNumber: number, flags: number): Uint8Array {
  const ends = { source: service(serviceNumber), destination: clientAtA(clientNumber) };
  return framed(tcpPacket(ends, { sourcePort: PORT, destinationPort: 40_000, flags }));
}

/** Sends from each service to each client: as many paths as a realm may have, and more. */
function* resets(services = SERVICES): Generator<Uint8Array> {
  for (let s = 0; s < services; s++) {
    for (let c = 0; c < CLIENTS; c++) yield segment(s, c, RST);
  }
}

describe('a service that sends unsolicited segments', () => {
  test('takes no path of the clients of another site, neither after a start nor later', () => {
    const scene = new Scene();
    scene.send('site-a', resets(4));
    expect(scene.received['site-b']).toBe(4 * CLIENTS);
    expect(scene.translator.pathsOf('site-b')).toBe(0);
    scene.request(CLIENTS, 0);
    expect(scene.received['site-a']).toBe(1);
    // The hostile site answers no request, so it opens no path.
    expect(scene.translator.pathsOf('site-b')).toBe(1);

    scene.clock.advance(GRACE_MS);
    const before = scene.received['site-b'];
    scene.send('site-a', resets());
    expect(scene.received['site-b']).toBe(before);
    expect(scene.verdicts('site-a')).toMatchObject({
      DropNoSession: SERVICES * CLIENTS,
      DropTableFull: 0,
    });
    scene.request(CLIENTS, 1);
    expect(scene.received['site-a']).toBe(2);
    expect(scene.verdicts('site-b')).toMatchObject({ Forward: 2, DropTableFull: 0 });
  });
});

describe('a connection from before a start', () => {
  test('continues when its service sends first, while the start lasts', () => {
    const scene = new Scene();
    scene.request(1, 1); // another client of the site sends something
    scene.answer(1, 1);
    scene.clock.advance(GRACE_MS - 1);
    scene.answer(0, 0);
    expect(scene.received['site-b']).toBe(2);
  });

  test('waits for its client if it was silent for longer and its service sends first', () => {
    const scene = new Scene();
    scene.request(1, 1);
    scene.answer(1, 1);
    scene.clock.advance(5 * GRACE_MS);
    scene.answer(0, 0);
    expect(scene.received['site-b']).toBe(1);
    expect(scene.verdicts('site-a')).toMatchObject({ DropNoSession: 1 });
    // This is a keepalive, or any other packet of the host to the service.
    scene.request(0, 0);
    scene.answer(0, 0); // sent again by TCP
    expect(scene.received['site-b']).toBe(2);
  });
});
