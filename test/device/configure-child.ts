/**
 * A process for the tests of `configureTun` that calls it with the configuration of its argument, as JSON, and
 * prints `done` or the message of the error. With a second argument it runs that as a command of the shell
 * and then closes the setup; without, it ends as a process that was killed, and leaves the setup.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { configureTun } from '../../src/device/index.ts';

const [configuration, command] = process.argv.slice(2);
try {
  const setup = await configureTun(JSON.parse(configuration!));
  if (command !== undefined) {
    execFileSync('sh', ['-c', command]);
    await setup.close();
  }
  console.log('done');
} catch (error) {
  console.log((error as Error).message);
}
