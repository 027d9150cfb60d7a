import { expect, test } from 'vitest';
import { IpAddress } from '../../../src/base/address.ts';
import { PathMtus, plateauBelow } from '../../../src/sockets/ip/path-mtu.ts';

const V4 = IpAddress.parse('10.0.0.2');
const V6 = IpAddress.parse('fd00::2');

test('a report holds for ten minutes', () => {
  let nowMs = 0;
  const mtus = new PathMtus(() => nowMs);
  expect(mtus.get(V4)).toBe(0);
  expect(mtus.learn(V4, 1400)).toBe(1400);
  nowMs = 599_999;
  expect(mtus.get(V4)).toBe(1400);
  expect(mtus.get(V6)).toBe(0);
  nowMs = 600_000;
  expect(mtus.get(V4)).toBe(0);
  expect(mtus.size).toBe(0);
});

test('a report never raises what is known', () => {
  const mtus = new PathMtus(() => 0);
  mtus.learn(V4, 1300);
  expect(mtus.learn(V4, 1400)).toBe(0);
  expect(mtus.learn(V4, 1300)).toBe(0);
  expect(mtus.get(V4)).toBe(1300);
  expect(mtus.learn(V4, 1200)).toBe(1200);
});

test('no report lowers it below the floor of the IP version', () => {
  const mtus = new PathMtus(() => 0);
  expect(mtus.learn(V4, 68)).toBe(552);
  expect(mtus.learn(V6, 1279)).toBe(0);
  expect(mtus.get(V6)).toBe(0);
  expect(mtus.learn(V6, 1280)).toBe(1280);
});

test('the number of destinations is bounded, and the oldest go', () => {
  const mtus = new PathMtus(() => 0, 10);
  const hosts = Array.from({ length: 25 }, (_, i) => IpAddress.parse(`10.0.1.${i}`));
  for (const host of hosts) mtus.learn(host, 1400);
  expect(mtus.size).toBe(10);
  expect(hosts.filter((host) => mtus.get(host) !== 0)).toEqual(hosts.slice(15));
});

test('a router that reports no MTU means the next plateau', () => {
  expect(plateauBelow(65_535)).toBe(32_000);
  expect(plateauBelow(1500)).toBe(1492);
  expect(plateauBelow(1492)).toBe(1006);
  expect(plateauBelow(100)).toBe(552);
});
