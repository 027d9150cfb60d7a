/**
 * The scripts of `cases/`, a file for each family.
 * @module
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseScripts } from './parser.ts';
import { isFor } from './runner.ts';
import type { Script, SubjectKind } from './script.ts';

export function readCases(): readonly Script[] {
  const folder = fileURLToPath(new URL('cases/', import.meta.url));
  return readdirSync(folder)
    .sort()
    .flatMap((file) => parseScripts(file, readFileSync(`${folder}${file}`, 'utf8')));
}

/** How long the waits of a script take on a subject, in ms. */
export function durationOf(script: Script, kind: SubjectKind): number {
  const place = { family: script.families[0]! };
  return script.events
    .filter((event) => isFor(event, { kind, place }))
    .reduce((sum, event) => sum + event.afterMs, 0);
}
