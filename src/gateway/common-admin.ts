/**
 * Serves the admin interface of a gateway, if the option `adminSocket` asks for it.
 * @module
 */
import { AdminServer, type Handlers } from '../admin/index.ts';
import type { CloseStack } from '../base/close-stack.ts';
import type { ResolvedCommonOptions } from './common-options.ts';

/**
 * Listens until `closing` closes.
 *
 * @throws {EnvironmentError} if the path is in use, or cannot be used.
 */
export async function serveAdmin<T extends object>(
  { adminSocket, logger }: Pick<ResolvedCommonOptions, 'adminSocket' | 'logger'>,
  closing: CloseStack,
  operations: T,
  handlers: Handlers<T>
): Promise<void> {
  if (adminSocket === undefined) return;
  const admin = await AdminServer.listen({
    socketPath: adminSocket,
    operations,
    handlers,
    logger,
  });
  closing.add(() => admin.close());
}
