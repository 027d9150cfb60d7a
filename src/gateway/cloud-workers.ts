/**
 * Creates the worker pool of a cloud gateway: its credentials, its access rules, and the host program's `authorize`.
 * @module
 */
import type { PresenceController } from '../control/index.ts';
import { ApiMisuseError } from '../errors.ts';
import { type Credentials, EnrolmentServer } from '../pki/index.ts';
import { CLOUD, type Registry } from '../registry/index.ts';
import type { TunnelRefusal } from '../tunnel/index.ts';
import { WorkerPool, type WorkerPoolOptions } from '../worker/index.ts';
import type { AuthorityKeeper } from './authority-keeper.ts';
import type { CloudCluster } from './cloud-cluster.ts';
import type { ResolvedCloudOptions } from './cloud-options.ts';

/** Returns a pool that is not open yet. */
export function createPool(
  options: ResolvedCloudOptions,
  parts: {
    readonly device: WorkerPoolOptions['device'];
    readonly registry: Registry;
    readonly trust: AuthorityKeeper;
    readonly enrolment: EnrolmentServer;
    readonly admit: PresenceController['admit'];
    readonly cluster: CloudCluster | undefined;
    readonly onProblem: (error: Error, site?: string) => void;
  }
): WorkerPool {
  const { device, registry, trust, enrolment, admit, cluster } = parts;
  const { authorize, clock, logger, limits, tunnel, workers, workerMain } = options;
  const isShared = options.enrolment.listen === 'shared';
  // A site that enrols knows only the hash of the root, so the shared port must send the root too.
  const withRoot = (credentials: Credentials): Credentials =>
    isShared ? { ...credentials, cert: `${credentials.cert}${credentials.ca}` } : credentials;
  const pool: WorkerPool = new WorkerPool({
    workers,
    device,
    tunnel,
    limits,
    clock,
    logger,
    credentials: () => withRoot(trust.credentials),
    access: () => ({
      sites: edgeSites(registry),
      revocations: trust.authority.revocations.table,
      retired: trust.retired.map(String),
    }),
    admit,
    ...(workerMain && { workerMain }),
    ...(cluster && { sites: 'taken' }),
    ...((authorize || cluster) && {
      // The worker logs the error and refuses the site.
      authorize: async ({ site, remoteAddress, lastEpoch }) => {
        try {
          const refusal =
            authorize && (await authorizeHandshake(authorize, { site, remoteAddress }));
          return refusal ?? (await cluster?.authorize(site, lastEpoch, pool));
        } catch (error) {
          parts.onProblem(error as Error, site);
          throw error;
        }
      },
    }),
    ...(isShared && {
      otherProtocols: { [EnrolmentServer.alpn]: (socket) => enrolment.handle(socket) },
    }),
  });
  trust.on('credentials', (credentials) => pool.setCredentials(withRoot(credentials)));
  return pool;
}

/** Returns the names of all sites but the cloud. Nothing is read before the first is asked for. */
function* edgeSites(registry: Registry): Generator<string> {
  for (const { name } of registry.sites()) if (name !== CLOUD) yield name;
}

/**
 * Calls the option `authorize` for a connection of a tunnel.
 *
 * @throws what the function throws; or {ApiMisuseError} if it returns neither undefined nor a text.
 */
async function authorizeHandshake(
  authorize: NonNullable<ResolvedCloudOptions['authorize']>,
  peer: { readonly site: string; readonly remoteAddress: string }
): Promise<TunnelRefusal | undefined> {
  const reason: unknown = await authorize({ ...peer, at: 'handshake' });
  if (reason === undefined) return undefined;
  if (typeof reason === 'string') return { code: NOT_AUTHORIZED, reason };
  const text = `authorize must return undefined or a reason in text, not ${typeof reason}`;
  throw new ApiMisuseError(text);
}

/** The close code for an edge that the option `authorize` refuses. */
const NOT_AUTHORIZED = 'not-authorized';
