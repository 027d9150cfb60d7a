/**
 * A Prometheus of Debian for a test: it scrapes two jobs, evaluates the alert rules that are shipped, without their
 * waits, and is asked over its API.
 * @module
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const RULES = 'prometheus/virtual-presence.rules.yml';

/** Returns why the tests cannot run; undefined if they can. */
export function prometheusMissing(): string | undefined {
  for (const program of ['prometheus', 'promtool']) {
    try {
      execFileSync(program, ['--version'], { stdio: 'ignore' });
    } catch {
      return `${program} is not installed (Debian package prometheus)`;
    }
  }
  return undefined;
}

/** Runs promtool, and throws with what it says if it finds a fault. */
export function promtool(args: readonly string[], input = ''): void {
  execFileSync('promtool', args, { input, encoding: 'utf8', stdio: 'pipe' });
}

export type Job = 'virtual-presence-cloud' | 'virtual-presence-edge';

export class PrometheusServer {
  readonly #home: string;
  readonly #process: ChildProcess;
  readonly #url: string;

  private constructor(home: string, child: ChildProcess, url: string) {
    this.#home = home;
    this.#process = child;
    this.#url = url;
  }

  /** Listens on a free port of the loopback interface. */
  static async start(): Promise<PrometheusServer> {
    const home = mkdtempSync(join(tmpdir(), 'vp-prometheus-'));
    // An alert fires at the first evaluation, and ends soon after its reason.
    const rules = readFileSync(RULES, 'utf8')
      .replace(/^( +for:) .*$/gm, '$1 0s')
      .replace(/\[\d+m\]/g, '[5s]');
    writeFileSync(join(home, 'rules.yml'), rules);
    const job = (name: Job): string =>
      `  - job_name: ${name}\n    file_sd_configs: [{ files: [${name}.json] }]\n`;
    writeFileSync(
      join(home, 'prometheus.yml'),
      'global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms }\n' +
        `rule_files: [rules.yml]\nscrape_configs:\n${job('virtual-presence-cloud')}${job('virtual-presence-edge')}`
    );
    const args = [
      `--config.file=${join(home, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(home, 'data')}`,
      '--web.listen-address=127.0.0.1:0',
    ];
    const child = spawn('prometheus', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    const url = await new Promise<string>((resolve, reject) => {
      child.stderr.on('data', (chunk: Buffer) => {
        log += chunk;
        const port = /msg="Listening on" address=127\.0\.0\.1:(\d+)/.exec(log)?.[1];
        if (port !== undefined) resolve(`http://127.0.0.1:${port}`);
      });
      child.once('close', () => reject(new Error(`prometheus has ended: ${log}`)));
      child.once('error', reject);
    });
    return new PrometheusServer(home, child, url);
  }

  /** Scrapes these ports of the loopback interface from now on, in place of the former ones of the job. */
  scrape(job: Job, ...ports: readonly number[]): void {
    const targets = ports.map((port) => `127.0.0.1:${port}`);
    writeFileSync(join(this.#home, `${job}.json`), JSON.stringify([{ targets }]));
  }

  /** Returns the names of the alerts that fire. */
  async alerts(): Promise<ReadonlySet<string>> {
    const { alerts } = (await this.#get('alerts')) as {
      alerts: { state: string; labels: { alertname: string } }[];
    };
    const firing = alerts.filter(({ state }) => state === 'firing');
    return new Set(firing.map(({ labels }) => labels.alertname));
  }

  /** Returns how many series a query has now. */
  async query(expression: string): Promise<number> {
    const { result } = (await this.#get(`query?query=${encodeURIComponent(expression)}`)) as {
      result: unknown[];
    };
    return result.length;
  }

  async close(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.kill('SIGKILL')) {
      await once(this.#process, 'close');
    }
    rmSync(this.#home, { recursive: true, force: true });
  }

  async #get(path: string): Promise<unknown> {
    const answer = await fetch(`${this.#url}/api/v1/${path}`);
    const body = (await answer.json()) as { status: string; error?: string; data: unknown };
    if (body.status !== 'success') throw new Error(`${path}: ${body.error}`);
    return body.data;
  }
}
