/** The JSON Schemas of the configuration files, and what is made from them. */
import { readFileSync } from 'node:fs';
import { Ajv, type ValidateFunction } from 'ajv';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { lossesOf, ONLY_THE_GATEWAY, SIDES, type Side } from '../../schemas/config-schema.ts';
import { generated } from '../../schemas/generated.ts';
import { TypeDocs } from '../../schemas/type-docs.ts';
import type { Machine } from '../../src/cli/machine.ts';
import { cloudStarter, edgeStarter } from '../../src/cli/starter.ts';
import {
  type ConfigFault,
  FAULTS_OF_BOTH,
  FAULTS_OF_CLOUD,
  FAULTS_OF_EDGE,
} from '../e2e/config-faults.ts';
import { cloudConfig, edgeConfig } from '../support/gateway-process.ts';

/** Ajv checks in its strict mode that each keyword is one of the draft and can have an effect. */
const ajv = new Ajv({ strict: true, strictTypes: false, formats: { 'date-time': true } });
const validators = Object.fromEntries(
  SIDES.map((side) => [side, ajv.compile(JSON.parse(readFileSync(`schemas/${side}.json`, 'utf8')))])
) as unknown as Readonly<Record<Side, ValidateFunction>>;

/** Returns what the schema says against a configuration; an empty list if it accepts it. */
function faultsOf(side: Side, config: unknown): unknown[] {
  return validators[side](config) ? [] : [...(validators[side].errors ?? [])];
}

test('the files that are made from schemas and docstrings are up to date: run npm run schemas', () => {
  for (const [path, text] of generated()) {
    expect(readFileSync(path, 'utf8') === text, path).toBe(true);
  }
}, 60_000);

test('a key without a docstring is named', () => {
  const docs = new TypeDocs(['src/cli/edge-file.ts']);
  const schema = { properties: { proxy: {}, colour: {} } };
  expect(() => docs.describe(schema, 'EdgeKeys')).toThrow(/without a docstring: .*colour/);
  expect(() => docs.describe(schema, 'Nothing')).toThrow(/no exported type Nothing/);
}, 60_000);

test('each check that only the gateway can make is one that a file has', () => {
  const losses = SIDES.flatMap((side) => lossesOf(side));
  for (const { action, message } of ONLY_THE_GATEWAY) {
    const isThere = losses.some((each) => each.action === action && each.message === message);
    expect(isThere, `${action} "${message}"`).toBe(true);
  }
});

describe.each(SIDES)('the schema of the file of a gateway of the kind %s', (side) => {
  test('accepts the reference configuration, and the keys in its comments', () => {
    const text = readFileSync(`examples/${side}-gateway/${side}.yaml`, 'utf8');
    expect(faultsOf(side, parse(text))).toEqual([]);
    const lines = text.split('\n');
    const first = lines.findIndex((line) => line.startsWith('# sockets:'));
    const length = lines.slice(first).findIndex((line) => !line.startsWith('#'));
    const block = lines.slice(first, first + length).map((line) => line.slice(2));
    expect(faultsOf(side, { ...parse(text), ...parse(block.join('\n')) })).toEqual([]);
  });

  test.each(['tun', 'sockets'] as const)('accepts what init writes for the device %s', (device) => {
    const machine: Machine = {
      noTun: undefined,
      address: '192.0.2.1',
      lan: { device: 'eth0', address: '192.0.2.1', network: '192.0.2.0/24' },
      pool: '100.64.0.0/24',
      hasDnsPort: true,
    };
    const options = { device, schema: `./${side}.json`, tunnel: '192.0.2.1:7443' };
    const text = side === 'cloud' ? cloudStarter(machine, options) : edgeStarter(machine, options);
    expect(faultsOf(side, parse(text))).toEqual([]);
  });

  const ofSide = side === 'cloud' ? FAULTS_OF_CLOUD : FAULTS_OF_EDGE;
  const faults = [...FAULTS_OF_BOTH, ...ofSide].map((each) => [each.fault, each] as const);
  test.each(faults)('refuses what the gateway refuses: %s', (_, { fault, spoil }: ConfigFault) => {
    const config = side === 'cloud' ? cloudConfig() : edgeConfig(9);
    expect(faultsOf(side, config)).toEqual([]);
    spoil(config);
    const isRefused = faultsOf(side, JSON.parse(JSON.stringify(config))).length > 0;
    expect(isRefused).toBe(!KNOWN_TO_THE_GATEWAY_ALONE.includes(fault));
  });
});

/** The faults that no JSON Schema can know; test/e2e/bad-input.test.ts shows that the gateway does. */
const KNOWN_TO_THE_GATEWAY_ALONE: readonly string[] = [
  'no site with the name cloud',
  'a pool with host bits',
  'a service at an address that is not its site’s',
  'a range of ports from high to low',
  'an exposure of a service that there is not',
  'an exposure to a site that there is not',
  'two sites of one name',
  'two names of one kind at one site',
  'a device between two IP versions',
];
