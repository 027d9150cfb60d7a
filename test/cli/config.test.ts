/** `config check`, `config show` and `config schema`, without the machine. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { ExitCode } from '../../src/cli/index.ts';
import { generateCa, generateGatewayKey } from '../../src/pki/index.ts';
import { blocksOf } from '../documents/snippets.ts';
import {
  type ConfigFault,
  FAULTS_OF_BOTH,
  FAULTS_OF_CLOUD,
  FAULTS_OF_EDGE,
} from '../e2e/config-faults.ts';
import { type Config, cloudConfig, edgeConfig } from '../support/gateway-process.ts';
import { runCommand } from './run-command.ts';

const root = mkdtempSync(join(tmpdir(), 'vp-config-'));
let count = 0;
afterAll(() => rmSync(root, { recursive: true, force: true }));

function write(config: Config | string): string {
  const path = join(root, `${count++}.yaml`);
  writeFileSync(path, typeof config === 'string' ? config : stringify(config));
  return path;
}

const CLOUD = 'examples/cloud-gateway/cloud.yaml';
const EDGE = 'examples/edge-gateway/edge.yaml';

describe('config check', () => {
  test('says what a right file is', async () => {
    const cloud = await runCommand(['config', 'check', CLOUD]);
    expect(cloud).toEqual({
      code: 0,
      out: `ok    configuration  ${CLOUD} is the configuration of a cloud gateway, with 2 sites, 1 service, 1 exposure\n`,
      err: '',
    });
    const edge = await runCommand(['config', 'check', '--json', EDGE]);
    expect(JSON.parse(edge.out)).toEqual({
      schemaVersion: 1,
      status: 'ok',
      findings: [
        {
          check: 'configuration',
          status: 'ok',
          message: `${EDGE} is the configuration of an edge gateway`,
        },
      ],
    });
  });

  test.each(['cloud', 'edge'] as const)(
    'refuses what a gateway of the kind %s refuses',
    async (side) => {
      const ofSide = side === 'cloud' ? FAULTS_OF_CLOUD : FAULTS_OF_EDGE;
      for (const { fault, spoil, line, key, says } of [
        ...FAULTS_OF_BOTH,
        ...ofSide,
      ] as ConfigFault[]) {
        const config = side === 'cloud' ? cloudConfig() : edgeConfig(9);
        spoil(config);
        const path = write(config);
        const { code, out, err } = await runCommand(['config', 'check', path]);
        expect({ code, out }, fault).toEqual({ code: ExitCode.Usage, out: '' });
        const lines = readFileSync(path, 'utf8').split('\n');
        const number =
          line === undefined ? '' : `:${lines.findLastIndex((each) => each.includes(line)) + 1}`;
        const start = `virtual-presence: ${path}${number}: ${key}: `;
        expect(err.startsWith(start), `${fault}: ${err}`).toBe(true);
        expect(err.slice(start.length).trimEnd()).toMatch(says);
      }
    }
  );

  test('reads the files that a file names', async () => {
    const config = { ...cloudConfig(), trust: { passphraseFile: './empty' } };
    writeFileSync(join(root, 'empty'), '');
    const path = write(config);
    const { code, err } = await runCommand(['config', 'check', path]);
    expect(code).toBe(ExitCode.Usage);
    expect(err).toMatch(/trust\.passphraseFile: the passphrase file .* is empty/);
    const json = await runCommand(['config', 'check', '--json', path]);
    expect(JSON.parse(json.out)).toMatchObject({
      status: 'fail',
      findings: [{ check: 'configuration', status: 'fail' }],
    });
  });
});

describe('config check of a machine of several', () => {
  /** The file of the guide, with secrets that lie beside it. */
  const [guide] = blocksOf('docs/several-machines.md').filter(
    ({ language }) => language === 'yaml'
  );
  const { certificatePem: cert, privateKeyPem: key } = generateCa({ trustDomain: 'etcd.test' });
  const files = { passphrase: 'secret', cert, key, other: generateGatewayKey().privateKeyPem };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, name), text);
  const machine = (etcd: object, trust: object = { passphraseFile: './passphrase' }): string => {
    const file = parse(guide!.text) as { readonly cluster: { readonly etcd: object } };
    const secrets = { caFile: './cert', certificateFile: './cert', keyFile: './key' };
    const cluster = { ...file.cluster, etcd: { ...file.cluster.etcd, ...secrets, ...etcd } };
    return write({ ...file, trust, cluster });
  };

  test('takes the file of the guide, and does not connect to etcd', async () => {
    const { code, err } = await runCommand(['config', 'check', machine({})]);
    expect({ code, err }).toEqual({ code: 0, err: '' });
  });

  test.each([
    ['no passphrase', machine({}, {}), /trust\.passphraseFile: is missing: the key of the CA/],
    ['a certificate without key', machine({ keyFile: undefined }), /etcd\.keyFile: is missing/],
    ['a certificate without TLS', machine({ caFile: undefined }), /etcd\.caFile: is missing/],
    ['a user without password', machine({ user: 'one' }), /etcd\.passwordFile: is missing/],
    [
      'trust anchors in no PEM',
      machine({ caFile: './passphrase' }),
      /etcd\.caFile: expected a file/,
    ],
    ['a key in no PEM', machine({ keyFile: './passphrase' }), /etcd\.keyFile: expected a file/],
    ['the key of another', machine({ keyFile: './other' }), /etcd\.keyFile: is not the key/],
    ['a file that is not there', machine({ caFile: './none' }), /none cannot be read/],
    ['an odd prefix', machine({ prefix: 'vp' }), /etcd\.prefix: expected a text that begins/],
  ])('refuses %s', async (_, path, says) => {
    const { code, err } = await runCommand(['config', 'check', path]);
    expect(code).not.toBe(0);
    expect(err).toMatch(says);
  });
});

describe('config show', () => {
  const withSockets: Config = {
    ...edgeConfig(9),
    device: { type: 'sockets' },
    proxy: 'http://user:secret@proxy.example.org:3128',
    sockets: {
      publish: {},
      forward: [{ listen: 6080, host: 'console.openstack.test', port: 6080 }],
      proxy: { listen: { path: './proxy.sock', mode: 0o660 }, auth: false },
    },
  };

  test('prints every default, and no secret', async () => {
    const { code, out } = await runCommand(['config', 'show', write(withSockets)]);
    expect(code).toBe(0);
    expect(out).not.toMatch(/secret|user:/);
    expect(parse(out)).toMatchObject({
      snapshotValidSeconds: 604_800,
      proxy: 'http://hidden:hidden@proxy.example.org:3128/',
      dns: { rateLimit: { slip: 1 } },
      sockets: {
        publish: { loopback: '127.64.0.0/16', maxListeners: 1024 },
        forward: [{ listen: { host: '127.0.0.1', port: 6080 }, maxConnections: 1024 }],
      },
    });
    const cloud = parse((await runCommand(['config', 'show', CLOUD])).out);
    expect(cloud).toMatchObject({
      limits: { maxHandshakes: 128 },
      leases: { pressedIdleSeconds: 86_400, overlapSeconds: 330 },
      desired: { sites: [{ maxClients: 1024 }, { maxNames: 4096 }] },
    });
  });

  test.each([
    ['the reference file of a cloud', readFileSync(CLOUD, 'utf8')],
    ['the reference file of an edge', readFileSync(EDGE, 'utf8')],
    ['an edge with sockets', withSockets],
    ['a cloud with other defaults', { ...cloudConfig(), leases: { idleSeconds: 3600 } }],
  ])('prints a file that means the same: %s', async (_, config) => {
    const first = await runCommand(['config', 'show', write(config)]);
    expect(first).toMatchObject({ code: 0, err: '' });
    expect((await runCommand(['config', 'show', write(first.out)])).out).toBe(first.out);
  });
});

test('config schema prints the JSON Schema that the package has', async () => {
  for (const kind of ['cloud', 'edge']) {
    const { code, out } = await runCommand(['config', 'schema', kind]);
    expect({ code, out }).toEqual({ code: 0, out: readFileSync(`schemas/${kind}.json`, 'utf8') });
  }
  expect(await runCommand(['config', 'schema', 'other'])).toMatchObject({ code: ExitCode.Usage });
});
