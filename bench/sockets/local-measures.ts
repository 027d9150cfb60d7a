/**
 * Runs the measures of `local.ts`, each in a process of its own.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** The measures that need no network, by name. */
export const LOCAL_PARTS: readonly string[] = ['endpoint', 'sockets', 'requests', 'idle'];

/** @param program what `buildSocketPrograms` has made of `local.ts` */
export async function measureLocal(
  program: string,
  part: string,
  isQuick: boolean
): Promise<Readonly<Record<string, number>>> {
  const scale = isQuick ? 4 : 1;
  const run = async (...words: (string | number)[]): Promise<Record<string, number>> => {
    const args = ['--expose-gc', program, ...words.map(String)];
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 120_000 });
    return JSON.parse(stdout) as Record<string, number>;
  };
  const bulk = async (...words: (string | number)[]): Promise<number> =>
    (await run(...words)).cpuSecondsPerGiB!;
  switch (part) {
    case 'endpoint':
      return {
        superCpu: await bulk('endpoint', 'super', 2048 / scale),
        shortCpu: await bulk('endpoint', '1460', 512 / scale),
      };
    case 'sockets':
      return {
        onreadCpu: await bulk('sockets', 'super', 'onread', 2048 / scale),
        dataCpu: await bulk('sockets', 'super', 'data', 2048 / scale),
        shortOnreadCpu: await bulk('sockets', '1460', 'onread', 512 / scale),
      };
    case 'requests': {
      const { cpuUs } = await run('requests', 10_000 / scale);
      return { cpuUs: cpuUs! };
    }
    default: {
      const { heap, external } = await run('idle', 10_000);
      return { heapBytes: heap!, externalBytes: external! };
    }
  }
}
