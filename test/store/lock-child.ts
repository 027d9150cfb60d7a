/**
 * Opens and closes stores: reads one command per line from its standard input and answers each with one line. It ends
 * with its standard input. Run by lock.test.ts.
 * @module
 */
import { createInterface } from 'node:readline';
import { FileStore } from '../../src/store/index.ts';
import { FileLock } from '../../src/store/lock.ts';

let close: (() => Promise<void>) | undefined;

async function obey(command: string, path: string): Promise<string> {
  try {
    if (command === 'open') {
      const store = await FileStore.open({ path });
      close = () => store.close();
    } else if (command === 'lock') {
      const lock = await FileLock.acquire(path);
      close = () => lock.release();
    } else {
      await close?.();
    }
    return 'done';
  } catch (error) {
    return (error as Error).message;
  }
}

console.log('ready');
for await (const line of createInterface(process.stdin)) {
  const [command, path] = line.split(' ', 2);
  console.log(await obey(command!, path!));
}
process.exit();
