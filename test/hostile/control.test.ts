/**
 * Messages on the control channel of a site's tunnel: too many, too long, or not for an edge to send.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createSigningRequest, generateGatewayKey } from '../../src/pki/index.ts';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { frameBytes, type RawPeer } from '../support/raw-peer.ts';
import { ended, intrude, leave, pour, settled } from './attacker.ts';
import { FULL, type Outcome, Scene } from './scene.ts';

let scene: Scene;
/** Who attacks here; site-a has its connections for the honest edge afterwards. */
let siteF: Credentials;
let siteG: Credentials;

beforeAll(async () => {
  scene = await Scene.open();
  siteF = await scene.enrol('site-f');
  siteG = await scene.enrol('site-g');
});

afterAll(() => scene?.close());

const control = (message: object | string): Buffer =>
  frameBytes(
    FrameType.Control,
    Buffer.from(typeof message === 'string' ? message : JSON.stringify(message))
  );

/** One tunnel, and what is done on it. */
function onTunnel(what: string, run: (peer: RawPeer) => Promise<void>): Promise<Outcome> {
  return scene.attack(what, async () => {
    const peer = await intrude(scene.ports.tunnel, siteF);
    await run(peer);
    await leave(peer);
  });
}

describe('a flood', () => {
  test.each([
    ['good messages', { type: 'status', counters: { packets: 1 } }],
    ['messages of no known type', { type: 'nonsense' }],
    ['messages as long as they may be', { type: 'nonsense', of: 'x'.repeat(120_000) }],
  ])('of %s ends the tunnel', async (what, message) => {
    const frame = control(message);
    const outcome = await onTunnel(`flood of ${what}`, async (peer) => {
      const end = ended(peer);
      await pour(peer, () => frame, FULL ? 1_000_000 : 50_000);
      expect(await end).toBe('control-rate');
    });
    expect(outcome.differences).toMatchObject({ 'listener.controlFloods': 1 });
  });

  test('of PING is answered no faster than it is read, and no more of it kept', async () => {
    const pings = Buffer.concat(
      Array.from({ length: 1_000 }, () => frameBytes(FrameType.Ping, Buffer.alloc(8)))
    );
    await onTunnel('flood of PING', async (peer) => {
      peer.socket.pause();
      await Promise.race([
        pour(peer, () => pings, FULL ? 2_000 : 200),
        new Promise((resolve) => setTimeout(resolve, FULL ? 10_000 : 2_000)),
      ]);
    });
  });

  test('of renewals gets a dozen certificates, and refusals after that', async () => {
    const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
    const answers: string[] = [];
    const outcome = await onTunnel('flood of renewals', async (peer) => {
      for (let i = 0; i < 200; i++) peer.socket.write(control({ type: 'renew', csrPem }));
      while (answers.length < 200) {
        const answer = await peer.json(FrameType.Control);
        if (answer === undefined) break;
        if (answer.type === 'certificate') answers.push('certificate');
        if (answer.type === 'refusal') answers.push(String(answer.code));
      }
    });
    const granted = outcome.counted('renewals.renewed');
    expect(granted).toBeGreaterThan(0);
    expect(granted).toBeLessThanOrEqual(12);
    expect(answers.filter((answer) => answer === 'certificate')).toHaveLength(granted);
    expect(answers.filter((answer) => answer === 'ERR_PRESENCE_TOO_MANY')).toHaveLength(
      200 - granted
    );
    expect(outcome.differences).toMatchObject({ 'renewals.limited': 200 - granted });
  });
});

describe('messages', () => {
  test.each([
    ['a snapshot', { type: 'snapshot', snapshot: { revision: 1 } }],
    ['trust anchors', { type: 'trust', caPem: 'x', renew: true }],
    ['a certificate', { type: 'certificate', certificatePem: 'x', caPem: 'x' }],
    ['a wrong acknowledgement', { type: 'ack', revision: -1 }],
    ['no type', {}],
    ['no mapping', '[[1]]'],
    ['an overlong name', { type: 'status', counters: { ['x'.repeat(65)]: 1 } }],
    [
      'too many counters',
      {
        type: 'status',
        counters: Object.fromEntries(Array.from({ length: 257 }, (_, i) => [i, 1])),
      },
    ],
  ])('with %s end the tunnel', async (what, message) => {
    const outcome = await onTunnel(what, async (peer) => {
      peer.socket.write(control(message));
      expect(await ended(peer)).toBe('protocol-error');
    });
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': 1 });
  });

  test('of the greatest length and depth do not keep others waiting', async () => {
    const bodies = [
      deep(LONGEST),
      `{"type":"x","y":[${'{},'.repeat(LONGEST / 3)}{}]}`,
      `{"type":"status","counters":{${numbered(LONGEST / 12)}}}`,
      `{"type":"snapshot","snapshot":{"revision":1,"site":"a","sources":[${'"10.0.0.0/8",'.repeat(LONGEST / 13)}"::/0"]}}`,
      `{"type":"renew","csrPem":"${'x'.repeat(LONGEST)}"}`,
      '['.repeat(LONGEST),
    ];
    const outcome = await scene.attack('long messages', async () => {
      for (const body of bodies) {
        const peer = await intrude(scene.ports.tunnel, siteG);
        const frame = control(body);
        const end = ended(peer);
        await pour(peer, () => frame, FULL ? 50 : 5);
        expect(await end).toBe('protocol-error');
      }
    });
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': bodies.length });
  });

  test('as long and as deep as they may be do not keep others waiting', async () => {
    await onTunnel('messages that fit', async (peer) => {
      for (let i = 0; i < FIT_AT_ONCE; i++) peer.socket.write(control(deep(FIT_BYTES)));
      await settled(peer);
      expect(peer.socket.destroyed, 'the tunnel is still up').toBe(false);
    });
  });

  test('of that kind in one tunnel after the other do not keep others waiting', async () => {
    const outcome = await scene.attack('messages in many tunnels', async () => {
      for (let i = 0; i < (FULL ? 40 : 10); i++) {
        const peer = await intrude(scene.ports.tunnel, siteG);
        for (let j = 0; j < FIT_AT_ONCE; j++) peer.socket.write(control(deep(FIT_BYTES)));
        await settled(peer);
        await leave(peer);
      }
    });
    expect(outcome.traffic.worstMs).toBeLessThan(500);
  });
});

/** Brackets in brackets, of so many bytes: nothing takes longer to read. */
function deep(bytes: number): string {
  const depth = (bytes - 20) / 2;
  return `{"type":"x","y":${'['.repeat(depth)}${']'.repeat(depth)}}`;
}

/** `"0":0,"1":0` and so on. */
function numbered(count: number): string {
  return Array.from({ length: count }, (_, i) => `"${i}":0`).join(',');
}

const LONGEST = 4_190_000;
/** What a tunnel takes at once, and how many of these before it is closed. */
const FIT_BYTES = 120_000;
const FIT_AT_ONCE = 10;
