/**
 * The OpenAPI documents of the admin interfaces, which `npm run schemas` writes.
 * @module
 */
import {
  CaAnswerSchema,
  DesiredAnswerSchema,
  ExposureAnswerSchema,
  NamesAnswerSchema,
  NewTokenAnswerSchema,
  PathAnswerSchema,
  PresenceAnswerSchema,
  ReceiptAnswerSchema,
  ReloadAnswerSchema,
  RevocationAnswerSchema,
  SelectorAnswerSchema,
  ServiceAnswerSchema,
  SiteAnswerSchema,
  TokenAnswerSchema,
  WhoisAnswerSchema,
} from '../src/admin/answers.ts';
import {
  CaptureBodySchema,
  DesiredBodySchema,
  EdgeExplainBodySchema,
  ExplainBodySchema,
  ExposureBodySchema,
  MoveBodySchema,
  PingBodySchema,
  RevocationBodySchema,
  RolloverBodySchema,
  SelectorBodySchema,
  ServiceBodySchema,
  SiteBodySchema,
  TokenBodySchema,
} from '../src/admin/bodies.ts';
import { CLOUD_OPERATIONS } from '../src/admin/cloud-operations.ts';
import { EDGE_OPERATIONS, EnrolmentBodySchema } from '../src/admin/edge-operations.ts';
import {
  EdgeExplainAnswerSchema,
  ExplainAnswerSchema,
  PingAnswerSchema,
} from '../src/admin/explanation.ts';
import {
  DrainAnswerSchema,
  MachineAnswerSchema,
  MachinesAnswerSchema,
  OwnMachineAnswerSchema,
} from '../src/admin/machines.ts';
import type { Operations } from '../src/admin/operation.ts';
import { CloudStatusAnswerSchema, EdgeStatusAnswerSchema } from '../src/admin/status.ts';
import type { Schema } from '../src/base/schema.ts';
import { type OpenApi, openApiOf } from './openapi.ts';

/** The schemas that have a name in the documents. */
const CLOUD_COMPONENTS: Readonly<Record<string, Schema<unknown>>> = {
  CaAnswer: CaAnswerSchema,
  CloudStatusAnswer: CloudStatusAnswerSchema,
  DesiredAnswer: DesiredAnswerSchema,
  DesiredBody: DesiredBodySchema,
  CaptureBody: CaptureBodySchema,
  DrainAnswer: DrainAnswerSchema,
  ExplainAnswer: ExplainAnswerSchema,
  ExplainBody: ExplainBodySchema,
  ExposureAnswer: ExposureAnswerSchema,
  ExposureBody: ExposureBodySchema,
  MachineAnswer: MachineAnswerSchema,
  MachinesAnswer: MachinesAnswerSchema,
  MoveBody: MoveBodySchema,
  NamesAnswer: NamesAnswerSchema,
  NewTokenAnswer: NewTokenAnswerSchema,
  OwnMachineAnswer: OwnMachineAnswerSchema,
  PathAnswer: PathAnswerSchema,
  PingAnswer: PingAnswerSchema,
  PingBody: PingBodySchema,
  PresenceAnswer: PresenceAnswerSchema,
  ReceiptAnswer: ReceiptAnswerSchema,
  ReloadAnswer: ReloadAnswerSchema,
  RevocationAnswer: RevocationAnswerSchema,
  RevocationBody: RevocationBodySchema,
  RolloverBody: RolloverBodySchema,
  SelectorAnswer: SelectorAnswerSchema,
  SelectorBody: SelectorBodySchema,
  ServiceAnswer: ServiceAnswerSchema,
  ServiceBody: ServiceBodySchema,
  SiteAnswer: SiteAnswerSchema,
  SiteBody: SiteBodySchema,
  TokenAnswer: TokenAnswerSchema,
  TokenBody: TokenBodySchema,
  WhoisAnswer: WhoisAnswerSchema,
};

/** Returns the document of a cloud gateway's admin interface. */
export function cloudApi(): OpenApi {
  return openApiOf({
    title: 'virtual-presence cloud gateway',
    version: 'v1',
    operations: CLOUD_OPERATIONS as unknown as Operations,
    components: CLOUD_COMPONENTS,
  });
}

/** Returns the document of an edge gateway's admin interface. */
export function edgeApi(): OpenApi {
  return openApiOf({
    title: 'virtual-presence edge gateway',
    version: 'v1',
    operations: EDGE_OPERATIONS as unknown as Operations,
    components: {
      EdgeExplainAnswer: EdgeExplainAnswerSchema,
      EdgeExplainBody: EdgeExplainBodySchema,
      EdgeStatusAnswer: EdgeStatusAnswerSchema,
      EnrolmentBody: EnrolmentBodySchema,
      NamesAnswer: NamesAnswerSchema,
      PingAnswer: PingAnswerSchema,
      PingBody: PingBodySchema,
    },
  });
}
