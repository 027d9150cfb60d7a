/**
 * The OpenAPI documents of the admin interfaces, which `npm run schemas` writes.
 * @module
 */
import {
  CaAnswer,
  DesiredAnswer,
  ExposureAnswer,
  NamesAnswer,
  NewTokenAnswer,
  PathAnswer,
  PresenceAnswer,
  ReceiptAnswer,
  ReloadAnswer,
  RevocationAnswer,
  SelectorAnswer,
  ServiceAnswer,
  SiteAnswer,
  TokenAnswer,
  WhoisAnswer,
} from '../src/admin/answers.ts';
import {
  CaptureBody,
  DesiredBody,
  EdgeExplainBody,
  ExplainBody,
  ExposureBody,
  MoveBody,
  PingBody,
  RevocationBody,
  RolloverBody,
  SelectorBody,
  ServiceBody,
  SiteBody,
  TokenBody,
} from '../src/admin/bodies.ts';
import { CLOUD_OPERATIONS } from '../src/admin/cloud-operations.ts';
import { EDGE_OPERATIONS, EnrolmentBody } from '../src/admin/edge-operations.ts';
import { EdgeExplainAnswer, ExplainAnswer, PingAnswer } from '../src/admin/explanation.ts';
import type { Operations } from '../src/admin/operation.ts';
import { CloudStatusAnswer, EdgeStatusAnswer } from '../src/admin/status.ts';
import type { Schema } from '../src/base/schema.ts';
import { type OpenApi, openApiOf } from './openapi.ts';

/** The schemas that have a name in the documents. */
const CLOUD_COMPONENTS: Readonly<Record<string, Schema<unknown>>> = {
  CaAnswer,
  CloudStatusAnswer,
  DesiredAnswer,
  DesiredBody,
  CaptureBody,
  ExplainAnswer,
  ExplainBody,
  ExposureAnswer,
  ExposureBody,
  MoveBody,
  NamesAnswer,
  NewTokenAnswer,
  PathAnswer,
  PingAnswer,
  PingBody,
  PresenceAnswer,
  ReceiptAnswer,
  ReloadAnswer,
  RevocationAnswer,
  RevocationBody,
  RolloverBody,
  SelectorAnswer,
  SelectorBody,
  ServiceAnswer,
  ServiceBody,
  SiteAnswer,
  SiteBody,
  TokenAnswer,
  TokenBody,
  WhoisAnswer,
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
      EdgeExplainAnswer,
      EdgeExplainBody,
      EdgeStatusAnswer,
      EnrolmentBody,
      NamesAnswer,
      PingAnswer,
      PingBody,
    },
  });
}
