import { expect, test } from 'vitest';
import { descriptorsFor, limitIn } from '../../../src/sockets/backend/host-descriptors.ts';

test('a backend has what its bounds allow, but at most three quarters of the limit of the process', () => {
  expect(descriptorsFor(20_480, 1_024)).toBe(768);
  expect(descriptorsFor(20_480, 1_048_576)).toBe(20_480);
  expect(descriptorsFor(20_480, 1)).toBe(1);
  const own = descriptorsFor(2 ** 31);
  expect(own).toBeGreaterThan(0);
  expect(own).toBeLessThan(2 ** 31);
});

test('the limit of the process is the soft one; what is not a number is no limit', () => {
  const limits = (soft: string): string =>
    [
      'Limit                     Soft Limit           Hard Limit           Units     ',
      'Max processes             127                  127                  processes ',
      `Max open files            ${soft.padEnd(20)} 1048576              files     `,
    ].join('\n');
  expect(limitIn(limits('1024'))).toBe(1024);
  expect(limitIn(limits('unlimited'))).toBe(2 ** 31 - 1);
  expect(limitIn('')).toBe(2 ** 31 - 1);
});
