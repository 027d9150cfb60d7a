/**
 * `npm run schemas`: writes the JSON Schemas of the configuration files, and the reference of their keys.
 * @module
 */
import { writeFileSync } from 'node:fs';
import { generated } from './generated.ts';

for (const [path, text] of generated()) writeFileSync(path, text);
