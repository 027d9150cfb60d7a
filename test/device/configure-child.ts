/**
 * A process for the tests of `configureTun`. It calls it with the configuration of its first argument, which is
 * JSON, and prints `done` or the message of the error. If there is a second argument, it runs that as a shell
 * command and then closes the setup. Otherwise it ends like a process that was killed, and leaves the setup.
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
