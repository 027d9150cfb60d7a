/**
 * `bench`: times the translation of packets on this machine, beside the figures that the package ships; with `--pcap` the
 * packets of a capture, and which of them would pass.
 * @module
 */
import type { Command } from 'commander';
import * as v from 'valibot';
import { IpPrefix } from '../../base/prefix.ts';
import { CaptureError } from '../../errors.ts';
import type { Schema } from '../../gateway/index.ts';
import { Registry } from '../../registry/index.ts';
import {
  benchmark,
  CaptureFile,
  type PlanSource,
  QUICK_TIMING,
  reportLines,
  TIMING_DEFAULTS,
} from '../../replay/index.ts';
import { MemoryStore } from '../../store/index.ts';
import { ConfigFile } from '../config-file.ts';
import { CommandError, ExitCode } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';

interface BenchOptions extends OutputOptions {
  readonly pcap?: string | undefined;
  readonly site?: readonly string[] | undefined;
  readonly desired?: string | undefined;
  readonly clientSite?: string | undefined;
  readonly quick?: boolean | undefined;
}

export function registerBench(program: Command, io: Io): void {
  const command = program
    .command('bench')
    .summary('time packets on this machine, or the packets of a capture')
    .description(
      'Times the translation of packets on this machine, beside the figures that the package ships. With --pcap it ' +
        'translates the packets of a capture, tells which of them would pass, and times those. It sends nothing.'
    )
    .option('--pcap <file>', 'a capture, in the format pcap or pcapng')
    .option(
      '--site <prefix...>',
      'the prefixes of the site; all other hosts are in the cloud (default: clients are in the site, services in the cloud)'
    )
    .option(
      '--desired <file>',
      'the configuration of a cloud gateway, whose services and exposures decide what passes (default: what the capture shows)'
    )
    .option(
      '--client-site <name>',
      'with --desired, the site that the clients are in (default: the only one with exposures)'
    )
    .option('--quick', 'time for a twentieth as long, which is less exact');
  withJson(command).action(async (options: BenchOptions) => {
    checkTogether(options);
    const plan = await planOf(options);
    const effort = options.quick === true ? QUICK_TIMING : TIMING_DEFAULTS;
    const capture = options.pcap === undefined ? undefined : new CaptureFile(options.pcap);
    const report = await benchmark(capture, { plan, effort }).catch((error) => {
      if (!(error instanceof CaptureError)) throw error;
      throw new CommandError(ExitCode.Failed, `${options.pcap}: ${error.message}`, {
        cause: error,
      });
    });
    printResult(io, options, report, () => reportLines(report));
  });
}

/** @throws {CommandError} if options contradict each other. */
function checkTogether({ pcap, site, desired, clientSite }: BenchOptions): void {
  if (pcap === undefined && (site !== undefined || desired !== undefined)) {
    throw new CommandError(
      ExitCode.Usage,
      '--site and --desired need a capture: add --pcap <file>'
    );
  }
  if (site !== undefined && desired !== undefined) {
    throw new CommandError(ExitCode.Usage, '--site and --desired are two plans: give one of them');
  }
  if (clientSite !== undefined && desired === undefined) {
    throw new CommandError(
      ExitCode.Usage,
      '--client-site needs a desired state: add --desired <file>'
    );
  }
}

/** @throws {CommandError | ConfigError} if a prefix or the desired state is wrong. */
async function planOf({ site, desired, clientSite }: BenchOptions): Promise<PlanSource> {
  if (site !== undefined) return { kind: 'prefixes', prefixes: site.map(parsePrefix) };
  if (desired === undefined) return { kind: 'inferred' };
  const file = new ConfigFile(desired);
  const { desired: state } = file.read(DesiredFileSchema);
  const registry = await Registry.open(new MemoryStore());
  await file.locate(() => registry.apply(state, 'file'), { within: 'desired' });
  return { kind: 'desired', desired: registry, site: clientSite ?? onlySite(registry, desired) };
}

function parsePrefix(text: string): IpPrefix {
  try {
    return IpPrefix.parse(text);
  } catch (error) {
    throw new CommandError(ExitCode.Usage, `--site: ${(error as Error).message}`, { cause: error });
  }
}

/** The site with exposures, if there is only one. */
function onlySite(registry: Registry, path: string): string {
  const sites = [...new Set([...registry.exposures()].map(({ site }) => site))];
  if (sites.length === 1) return sites[0]!;
  throw new CommandError(
    ExitCode.Usage,
    sites.length === 0
      ? `${path} exposes nothing, so that no packet would pass`
      : `${path} exposes services to the sites ${sites.join(', ')}: choose that of the clients by --client-site`
  );
}

const DesiredFileSchema: Schema<{ readonly desired: object }> = v.looseObject({
  desired: v.looseObject({}),
});
