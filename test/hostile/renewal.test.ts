/**
 * Certificates that expire in seconds, and a CA rollover, while a stream passes: no byte is lost. Then an edge
 * that was off in the meantime.
 */
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { resolve } from '../e2e/protocols-scene.ts';
import {
  cloudConfig,
  type Ending,
  edgeConfig,
  eventually,
  GatewayProcess,
  killGateways,
  startCloud as startCloudProgram,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { type Host, Network, type Program, whatIsMissing } from '../support/network.ts';
import { Relay } from '../support/relay.ts';
import {
  type CloudStatus,
  callAdmin,
  certificatesIn,
  PORT,
  type Presence,
  RenewalScene,
} from './renewal-scene.ts';
import type { StreamReport } from './stream-host.ts';

const FULL = process.env.VP_FULL === '1';
const SECONDS = FULL ? 60 : 12;
const LIFETIME_SECONDS = FULL ? 20 : 10;

const skipReason = whatIsMissing({});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const workspace = new Workspace();

afterAll(async () => {
  await killGateways();
  workspace.remove();
});

/** The counters of a host's kernel: connections that either side has reset, and segments sent again. */
async function tcpOf(...hosts: Host[]): Promise<{ resets: number; retransmitted: number }> {
  const sum = { resets: 0, retransmitted: 0 };
  for (const host of hosts) {
    const [names, values] = (await host.get(['cat', '/proc/net/snmp']))
      .split('\n')
      .filter((line) => line.startsWith('Tcp:'))
      .map((line) => line.split(' '));
    const count = (name: string) => Number(values![names!.indexOf(name)]);
    sum.resets += count('EstabResets') + count('OutRsts');
    sum.retransmitted += count('RetransSegs');
  }
  return sum;
}

async function reportOf({ ended }: Program): Promise<StreamReport> {
  const { code, stdout, text } = await ended;
  if (code !== 0) throw new Error(`a stream has ended with ${code}: ${text}`);
  return JSON.parse(stdout.split('\n').find((line) => line.startsWith('{'))!);
}

describe.skipIf(isSkipped)(
  `a stream of ${SECONDS} s${isSkipped ? ` (skipped: ${skipReason})` : ''}`,
  () => {
    let network: Network | undefined;
    let scene: RenewalScene;
    let presencesOfB: readonly string[];

    beforeAll(async () => {
      if (skipReason !== undefined) throw new Error(skipReason);
      network = await Network.create(workspace.newDirectory());
      scene = await RenewalScene.start(network, workspace.newDirectory(), LIFETIME_SECONDS);
      await scene.newTokenForB();
      const edgeB = scene.startB();
      await edgeB.logged(/revision \d+, [1-9]/);
      presencesOfB = await scene.presencesOfB();
      await scene.stopB(edgeB);
    });

    afterAll(() => network?.close());

    const rolloverIs = async (state: string): Promise<void> => {
      expect((await scene.status()).ca.rollover).toBe(state);
    };
    const isCurrent = async (): Promise<true | undefined> => {
      const { sites } = await scene.status();
      const edge = sites.find(({ name }) => name === 'site-a')?.edge;
      return edge?.certificate?.isCurrent === true || undefined;
    };

    test('loses no byte and no connection by renewals and a whole CA rollover', async () => {
      const stream = (host: Host, ...args: string[]): Program =>
        host.start(
          [process.execPath, '--import', 'tsx', 'test/hostile/stream-host.ts', ...args],
          SECONDS + 60
        );
      const server = stream(scene.service, 'listen', '10.0.0.5', String(PORT));
      await server.printed(/ready/, 30_000);
      const address = await resolve(scene.hostA, 'service');
      const before = await tcpOf(scene.hostA, scene.service);
      const cloudSince = scene.cloud.output.length;
      const edgeSince = scene.edgeA.output.length;
      const client = stream(scene.hostA, 'connect', address, String(PORT), String(SECONDS));
      const part = (SECONDS / 6) * 1000;

      await delay(part);
      await scene.callAdmin('POST', '/v1/ca', { step: 'prepare' });
      await rolloverIs('prepared');
      await eventually(
        'site A to trust both CAs',
        () => certificatesIn(scene.pathOf('site-a/state/ca.pem')) === 2 || undefined
      );
      await delay(part);
      await scene.callAdmin('POST', '/v1/ca', { step: 'activate' });
      await rolloverIs('active');
      await eventually('site A to have a certificate of the new CA', isCurrent);
      await delay(part);
      await scene.callAdmin('POST', '/v1/ca', { step: 'retire' });
      await rolloverIs('none');
      await eventually(
        'site A to trust one CA',
        () => certificatesIn(scene.pathOf('site-a/state/ca.pem')) === 1 || undefined
      );

      const [sent, received] = await Promise.all([reportOf(client), reportOf(server)]);
      expect([sent.error, received.error]).toEqual([undefined, undefined]);
      expect(received.receivedBytes).toBe(sent.sentBytes);
      expect(received.receivedHash).toBe(sent.sentHash);
      expect(sent.receivedBytes).toBe(received.sentBytes);
      expect(sent.receivedHash).toBe(received.sentHash);
      const after = await tcpOf(scene.hostA, scene.service);
      expect(after.resets).toBe(before.resets);

      const edgeLog = scene.edgeA.output.slice(edgeSince);
      const renewed = edgeLog.split('certificate renewed').length - 1;
      // A renewal is due after half of the lifetime at the latest, and once more because of the rollover.
      expect(renewed).toBeGreaterThanOrEqual(Math.floor(SECONDS / LIFETIME_SECONDS) + 1);
      expect(edgeLog).not.toMatch(/: down,|not renewed|trying again|refused/);
      expect(scene.cloud.output.slice(cloudSince)).not.toMatch(/: down,|own certificate:|refused/);
      const { renewals } = await scene.status();
      expect(renewals).toMatchObject({ refused: 0, failed: 0 });
      const mebibytes = (bytes: number) => Math.round(bytes / (1 << 20));
      console.log(
        `${SECONDS} s, ${mebibytes(sent.sentBytes)} MiB up, ${mebibytes(received.sentBytes)} MiB ` +
          `down, ${renewed} renewals and a change of CA: no byte lost, no reset, ` +
          `${after.retransmitted - before.retransmitted} segments sent again`
      );
    });

    test('an edge that was off until its certificate expired reports it, and returns with a new token', async () => {
      const path = scene.pathOf('site-b/state/certificate.pem');
      const { validTo } = new X509Certificate(readFileSync(path));
      await delay(Math.max(0, Date.parse(validTo) - Date.now()));
      const { code, complaint } = await scene.startB().ended;
      expect(code).toBe(1);
      expect(complaint).toMatch(
        /^virtual-presence: \S+certificate\.pem expired on .*new token into/
      );
      expect(complaint).not.toContain('\n');

      await scene.newTokenForB();
      const edgeB = scene.startB();
      await edgeB.logged(/: up to /);
      expect(await scene.presencesOfB()).toEqual(presencesOfB);
      expect(certificatesIn(scene.pathOf('site-b/state/ca.pem'))).toBe(1);
      await scene.stopB(edgeB);
    });
  }
);

describe('a CA rollover', () => {
  let cloud: GatewayProcess;
  /** Where the edge dials, also after a restart of the cloud. */
  let relay: Relay;
  let cloudHome: string;
  let edgeHome: string;

  const startCloud = async (): Promise<void> => {
    const started = await startCloudProgram(join(cloudHome, 'gateway.yaml'));
    cloud = started.process;
    relay.target = started.tunnelPort;
  };
  const startEdge = (): GatewayProcess =>
    new GatewayProcess('edge', [join(edgeHome, 'gateway.yaml')]);
  const askCloud = <T>(method: string, path: string, body?: unknown): Promise<T> =>
    callAdmin(join(cloudHome, 'admin.sock'), method, path, body);
  const newToken = async (): Promise<void> => {
    const { token } = await askCloud<{ token: string }>('POST', '/v1/tokens', { site: 'site-a' });
    writeFileSync(join(edgeHome, 'token'), token);
  };
  const rollover = async (): Promise<string> =>
    (await askCloud<CloudStatus>('GET', '/v1/status')).ca.rollover;
  const presences = (): Promise<Presence[]> => askCloud('GET', '/v1/presences');

  beforeAll(async () => {
    cloudHome = workspace.newDirectory();
    edgeHome = workspace.newDirectory();
    relay = await Relay.open();
    writeConfig(cloudHome, cloudConfig());
    writeConfig(edgeHome, edgeConfig(relay.port));
    await startCloud();
    await newToken();
  });
  afterAll(() => relay.close());

  /**
   * Ends the edge, and returns when the cloud has noticed: `retire` is refused while there is a tunnel whose
   * certificate is not current.
   */
  const stopEdge = async (edge: GatewayProcess): Promise<void> => {
    const since = cloud.output.length;
    expect((await edge.kill('SIGTERM')).code).toBe(0);
    await cloud.logged(/site-a: down/, since);
  };

  /** Waits until the edge has stored so many CAs. */
  const trusted = (count: number): Promise<true> =>
    eventually(
      `${count} CAs`,
      () => certificatesIn(join(edgeHome, 'state/ca.pem')) === count || undefined
    );

  test('continues at the same step when the gateways are restarted', async () => {
    const restart = async (): Promise<void> => {
      expect((await cloud.kill('SIGTERM')).code).toBe(0);
      await startCloud();
    };
    let edge = startEdge();
    await edge.logged(/revision/);
    await askCloud('POST', '/v1/ca', { step: 'prepare' });
    await trusted(2);
    await stopEdge(edge);
    await restart();
    expect(await rollover()).toBe('prepared');
    await askCloud('POST', '/v1/ca', { step: 'activate' });
    await restart();
    expect(await rollover()).toBe('active');

    // Its certificate is of the previous CA, which is valid until it is retired.
    edge = startEdge();
    await cloud.logged(/site-a: presents a renewed certificate/);
    await edge.logged(/certificate renewed/);
    await askCloud('POST', '/v1/ca', { step: 'retire' });
    await trusted(1);
    expect(await rollover()).toBe('none');
    expect(edge.output).not.toMatch(/: down,|refused|not renewed/);
    await stopEdge(edge);
  });

  /** Waits until the edge ends by itself. */
  const endingOf = async (edge: GatewayProcess): Promise<Ending> => {
    await eventually(`an end of\n${edge.output}`, () => edge.child.exitCode ?? undefined).catch(
      async (cause) => {
        await edge.kill('SIGKILL');
        throw new Error(`it goes on:\n${edge.output}`, { cause });
      }
    );
    return edge.ended;
  };
  const steps = async (...names: string[]): Promise<void> => {
    for (const step of names) await askCloud('POST', '/v1/ca', { step });
  };
  /** Stores a new token where the edge reads one, as an operator does. */
  const comeBack = async (): Promise<void> => {
    await newToken();
    const edge = startEdge();
    await edge.logged(/: up to /);
    await stopEdge(edge);
  };

  test('ends an edge that was off throughout with a sentence, and a new token brings it back', async () => {
    const before = await presences();
    await steps('prepare', 'activate', 'retire');
    const { code, complaint } = await endingOf(startEdge());
    expect(code).toBe(1);
    expect(complaint).toMatch(
      /^virtual-presence: no tunnel, the certificates do not fit: [^\n]+; put a new token into \S+$/
    );
    await comeBack();
    expect(await presences()).toEqual(before);
  });

  test('ends an edge that was off after its first step with a sentence too', async () => {
    const before = await presences();
    const edge = startEdge();
    await edge.logged(/: up to /);
    await steps('prepare');
    await trusted(2);
    await stopEdge(edge);
    await steps('activate', 'retire');
    const { code, complaint } = await endingOf(startEdge());
    expect(code).toBe(3);
    expect(complaint).toMatch(/^virtual-presence: [^\n]*certificate[^\n]*$/);
    await comeBack();
    expect(await presences()).toEqual(before);
  });

  test('refuses a step out of order', async () => {
    for (const [step, fault] of [
      ['activate', 'no CA is prepared'],
      ['retire', 'there is no previous CA'],
    ]) {
      await expect(askCloud('POST', '/v1/ca', { step })).rejects.toThrow(fault);
    }
    await askCloud('POST', '/v1/ca', { step: 'prepare' });
    await expect(askCloud('POST', '/v1/ca', { step: 'prepare' })).rejects.toThrow(
      /already in progress/
    );
    expect(await rollover()).toBe('prepared');
  });
});
