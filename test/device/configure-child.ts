/**
 * A process for `configure.test.ts` that calls `configureTun` with the configuration of its argument, as JSON,
 * and prints `done` or the message of the error.
 * @module
 */
import { configureTun } from '../../src/device/index.ts';

try {
  await configureTun(JSON.parse(process.argv[2]!));
  console.log('done');
} catch (error) {
  console.log((error as Error).message);
}
