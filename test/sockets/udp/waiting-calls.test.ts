import { expect, test } from 'vitest';
import { WaitingCalls } from '../../../src/sockets/udp/waiting-calls.ts';

test('calls wait in order until they may run, and later ones run at once', () => {
  const calls = new WaitingCalls();
  const log: string[] = [];
  const add = (name: string): void =>
    calls.add(
      () => log.push(name),
      ({ message }) => log.push(`${name}: ${message}`)
    );
  add('a');
  add('b');
  expect([calls.size, calls.isOpen, log]).toEqual([2, false, []]);
  calls.fail(new Error('no'));
  expect([calls.size, log.splice(0)]).toEqual([0, ['a: no', 'b: no']]);
  add('c');
  calls.add(
    () => add('in between'),
    () => {}
  );
  add('d');
  calls.open();
  expect([calls.size, calls.isOpen]).toEqual([0, true]);
  add('e');
  expect(log).toEqual(['c', 'in between', 'd', 'e']);
});
