/** docs/command.md is what the tree of commands says. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { commandReference } from '../../schemas/command-reference.ts';

test('docs/command.md is current; `npm run schemas` writes it', () => {
  expect(readFileSync('docs/command.md', 'utf8')).toBe(commandReference());
});
