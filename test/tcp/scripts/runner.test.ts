import { describe, expect, test } from 'vitest';
import { parseScripts } from './parser.ts';
import { runScript, ScriptFailure } from './runner.ts';
import { stackSubject } from './stack.ts';

/** Runs a script that must fail, and returns what it says. */
async function failureOf(...lines: readonly string[]): Promise<string> {
  const [script] = parseScripts('x.pkt', ['== title', ...lines].join('\n'));
  const running = runScript(script!, stackSubject({ family: 4, seed: 1, offload: false }));
  const failure = await running.then(
    () => undefined,
    (error: unknown) => error
  );
  expect(failure).toBeInstanceOf(ScriptFailure);
  return (failure as ScriptFailure).message;
}

const SYN = '+0 < S 0:0(0) <mss 1460>';
const SYN_ACK = '+0 > S. 0:0(0) ack 1 <mss 1460>';

describe('runScript', () => {
  test('says which line failed, what was sent instead, and what happened before', async () => {
    const message = await failureOf('+0 listen()', SYN, '+0 > S. 0:0(0) ack 1 <mss 1400>');
    expect(message).toBe(
      [
        'x.pkt:1 "title" on stack, IPv4, line 4: +0 > S. 0:0(0) ack 1 <mss 1400>',
        'it sends S. 0:0(0) ack 1 win 65535 <mss 1460>: the option mss differs',
        '  so far:',
        '    +0.000 listen()',
        '    +0.000 < S 0:0(0) <mss 1460>',
        '    +0.000 > S. 0:0(0) ack 1 win 65535 <mss 1460>',
      ].join('\n')
    );
  });

  test('refuses a segment that comes too early', async () => {
    const message = await failureOf('+0 listen()', SYN, SYN_ACK, `+1.5~2 ${SYN_ACK.slice(3)}`);
    expect(message).toMatch(/it is sent (?:500|499)\.\d ms too early/);
  });

  test('refuses a segment that comes too late, as one that never comes', async () => {
    const message = await failureOf('+0 listen()', SYN, SYN_ACK, `+.5~.9 ${SYN_ACK.slice(3)}`);
    expect(message).toContain('it sends nothing');
  });

  test('refuses a segment that the script does not mention, before an event and at the end', async () => {
    const before = await failureOf('+0 listen()', SYN, '+0 accept() = -EAGAIN');
    expect(before).toContain('before that it sends S. 0:0(0) ack 1');
    expect(await failureOf('+0 listen()', SYN)).toContain('after the end it sends S. 0:0(0) ack 1');
  });

  test('refuses a call that returns something else', async () => {
    expect(await failureOf('+0 listen()', '+0 accept()')).toContain(
      'it returns EAGAIN instead of 0'
    );
  });
});
