/**
 * Messages on the control channel of a site's tunnel: too many, too long, or not for an edge to send.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createSigningRequest, generateGatewayKey } from '../../src/pki/index.ts';
import { type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { frameBytes, type RawPeer } from '../support/raw-peer.ts';
import { ended, leave, openTunnel, pour, settled } from './attacker.ts';
import { FULL, type Outcome, Scene } from './scene.ts';

let scene: Scene;
/** The site of the attacker; site-a keeps its connections for the legitimate edge afterwards. */
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

/** Opens one tunnel, and runs an attack on it. */
function onTunnel(what: string, run: (peer: RawPeer) => Promise<void>): Promise<Outcome> {
  return scene.attack(what, async () => {
    const peer = await openTunnel(scene.ports.tunnel, siteF);
    await run(peer);
    await leave(peer);
  });
}

describe('a flood', () => {
  test.each([
    ['valid messages', { type: 'status', counters: { packets: 1 } }],
    ['messages of an unknown type', { type: 'unknown' }],
    ['messages of the greatest length', { type: 'unknown', of: 'x'.repeat(120_000) }],
  ])('ends the tunnel if it consists of %s', async (what, message) => {
    const frame = control(message);
    const outcome = await onTunnel(`flood of ${what}`, async (peer) => {
      const end = ended(peer);
      await pour(peer, () => frame, FULL ? 1_000_000 : 50_000);
      expect(await end).toBe('control-rate');
    });
    expect(outcome.differences).toMatchObject({ 'listener.controlFloods': 1 });
  });

  test('is answered no faster than it is read, and not queued, if it consists of PING', async () => {
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

  test('gets a dozen certificates, and refusals after that, if it consists of renewals', async () => {
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
  ])('end the tunnel if they have %s', async (what, message) => {
    const outcome = await onTunnel(what, async (peer) => {
      peer.socket.write(control(message));
      expect(await ended(peer)).toBe('protocol-error');
    });
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': 1 });
  });

  test('do not delay other sites if they have the greatest length and depth', async () => {
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
        const peer = await openTunnel(scene.ports.tunnel, siteG);
        const frame = control(body);
        const end = ended(peer);
        await pour(peer, () => frame, FULL ? 50 : 5);
        expect(await end).toBe('protocol-error');
      }
    });
    expect(outcome.differences).toMatchObject({ 'listener.protocolErrors': bodies.length });
  });

  test('do not delay other sites if they are accepted and as long and deep as possible', async () => {
    await onTunnel('messages that fit', async (peer) => {
      for (let i = 0; i < FIT_AT_ONCE; i++) peer.socket.write(control(deep(FIT_BYTES)));
      await settled(peer);
      expect(peer.socket.destroyed, 'the tunnel is still up').toBe(false);
    });
  });

  test('do not delay other sites if they come in one tunnel after the other', async () => {
    const outcome = await scene.attack('messages in many tunnels', async () => {
      for (let i = 0; i < (FULL ? 40 : 10); i++) {
        const peer = await openTunnel(scene.ports.tunnel, siteG);
        for (let j = 0; j < FIT_AT_ONCE; j++) peer.socket.write(control(deep(FIT_BYTES)));
        await settled(peer);
        await leave(peer);
      }
    });
    // The long form runs alone on its machine.
    if (FULL) expect(outcome.traffic.worstMs).toBeLessThan(500);
  });
});

/** Returns nested brackets of so many bytes, the slowest JSON to parse. */
function deep(bytes: number): string {
  const depth = (bytes - 20) / 2;
  return `{"type":"x","y":${'['.repeat(depth)}${']'.repeat(depth)}}`;
}

/** Returns `"0":0,"1":0` and so on. */
function numbered(count: number): string {
  return Array.from({ length: count }, (_, i) => `"${i}":0`).join(',');
}

const LONGEST = 4_190_000;
/** The longest message that a tunnel accepts, and how many of them before it is closed. */
const FIT_BYTES = 120_000;
const FIT_AT_ONCE = 10;
