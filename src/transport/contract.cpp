// What a backend need not implement answers not_supported.
#include "transport/transport.hpp"

namespace evpl::transport {

Result<Link*> Port::bind(const Endpoint&, const Address*, Sink&, SendQueue&, Diagnostic&) { return Errc::not_supported; }
Result<Link*> Port::adopt(const Endpoint&, int, const Address&, Sink&, SendQueue&) { return Errc::not_supported; }
Result<void> Port::credentials(const Link&, std::int32_t&, std::uint32_t&, std::uint32_t&) const { return Errc::not_supported; }
Result<void> Port::join(Link&, const Address&, const Address&, bool) { return Errc::not_supported; }
Result<RemoteRegion> Port::expose(Link&, Buffer, Access) { return Errc::not_supported; }
Result<void> Port::revoke(Link&, const RemoteRegion&) { return Errc::not_supported; }
Result<void> Port::read(Link&, OperationId, const RemoteRegion&, std::uint64_t, Buffer) { return Errc::not_supported; }
Result<void> Port::write(Link&, OperationId, const RemoteRegion&, std::uint64_t, Buffer) { return Errc::not_supported; }
Result<void> Port::write_telling(Link&, OperationId, const RemoteRegion&, std::uint64_t, Buffer, std::uint32_t) { return Errc::not_supported; }
Result<void> Port::atomic(Link&, OperationId, const RemoteRegion&, std::uint64_t, const Atomic&, Buffer) { return Errc::not_supported; }

}  // namespace evpl::transport
