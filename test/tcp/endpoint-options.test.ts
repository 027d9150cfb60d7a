import { expect, test } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import { checkedLimits } from '../../src/tcp/endpoint-options.ts';

const KIB = 1_024;

test('the buffers of a connection have from 64 KiB to 4 MiB', () => {
  for (const connectionBufferBytes of [64 * KIB, 4_096 * KIB]) {
    expect(checkedLimits({ connectionBufferBytes }).connectionBufferBytes).toBe(
      connectionBufferBytes
    );
  }
  for (const connectionBufferBytes of [8 * KIB, 64 * KIB - 1, 4_096 * KIB + 1, 16_384 * KIB]) {
    expect(() => checkedLimits({ connectionBufferBytes })).toThrow(ApiMisuseError);
  }
});
