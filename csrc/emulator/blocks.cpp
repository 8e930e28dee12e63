#include "emulator/blocks.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace vlmk::emulator {
namespace {

using Graph = std::vector<std::vector<uint32_t>>;
constexpr uint32_t kNone = ~0U;

// Strongly connected components of a part of the graph (Tarjan, without recursion).
class Components {
  public:
    Components(const Graph& graph, const std::vector<uint32_t>& region, uint32_t cut, std::vector<uint32_t>& region_of,
               uint32_t region_id)
        : graph_(graph), region_of_(region_of), region_id_(region_id), cut_(cut) {
        index_.resize(graph.size(), kNone);
        low_.resize(graph.size(), 0);
        component_.resize(graph.size(), kNone);
        for (uint32_t node : region)
            if (index_[node] == kNone) visit(node);
    }
    uint32_t count() const { return count_; }
    uint32_t of(uint32_t node) const { return component_[node]; }

  private:
    bool inside(uint32_t node) const { return region_of_[node] == region_id_ && node != cut_; }

    void visit(uint32_t root) {
        struct Frame {
            uint32_t node;
            size_t next;
        };
        std::vector<Frame> frames{{root, 0}};
        open(root);
        while (!frames.empty()) {
            Frame& frame = frames.back();
            const uint32_t node = frame.node;
            if (frame.next < graph_[node].size()) {
                const uint32_t to = graph_[node][frame.next++];
                if (!inside(to)) continue;
                if (index_[to] == kNone) {
                    open(to);
                    frames.push_back({to, 0});
                } else if (component_[to] == kNone) {
                    low_[node] = std::min(low_[node], index_[to]);
                }
                continue;
            }
            frames.pop_back();
            if (!frames.empty()) low_[frames.back().node] = std::min(low_[frames.back().node], low_[node]);
            if (low_[node] == index_[node]) {
                uint32_t member;
                do {
                    member = stack_.back();
                    stack_.pop_back();
                    component_[member] = count_;
                } while (member != node);
                ++count_;
            }
        }
    }
    void open(uint32_t node) {
        index_[node] = low_[node] = next_index_++;
        stack_.push_back(node);
    }

    const Graph& graph_;
    const std::vector<uint32_t>& region_of_;
    uint32_t region_id_, cut_;
    std::vector<uint32_t> index_, low_, component_, stack_;
    uint32_t count_ = 0, next_index_ = 0;
};

class Order {
  public:
    explicit Order(const Graph& graph) : graph_(graph), region_of_(graph.size(), 0) {}

    std::vector<uint32_t> run() {
        std::vector<char> seen(graph_.size(), 0);
        std::vector<uint32_t> reachable{0};
        seen[0] = 1;
        for (size_t i = 0; i < reachable.size(); ++i)
            for (uint32_t to : graph_[reachable[i]])
                if (seen[to] == 0) {
                    seen[to] = 1;
                    reachable.push_back(to);
                }
        std::sort(reachable.begin(), reachable.end());
        for (uint32_t node = 0; node < graph_.size(); ++node) region_of_[node] = seen[node] != 0 ? 1 : 0;
        next_region_ = 2;
        region(reachable, 1, 0, kNone);
        return std::move(result_);
    }

  private:
    // Edges into `cut`, the header of the loop that this region is, are its back edges.
    void region(const std::vector<uint32_t>& nodes, uint32_t id, uint32_t entry, uint32_t cut) {
        const Components components(graph_, nodes, cut, region_of_, id);
        std::vector<std::vector<uint32_t>> members(components.count());
        for (uint32_t node : nodes) members[components.of(node)].push_back(node);
        std::vector<uint32_t> waiting(components.count(), 0);
        std::vector<uint32_t> header(components.count(), kNone);
        for (uint32_t node : nodes)
            for (uint32_t to : graph_[node]) {
                if (region_of_[to] != id || to == cut) continue;
                if (components.of(to) == components.of(node)) continue;
                ++waiting[components.of(to)];
                uint32_t& h = header[components.of(to)];
                h = std::min(h, to);
            }
        header[components.of(entry)] = entry;
        using Item = std::pair<uint32_t, uint32_t>;  // lowest member, component
        std::priority_queue<Item, std::vector<Item>, std::greater<>> ready;
        const auto push = [&](uint32_t c) { ready.push({members[c].front(), c}); };
        for (uint32_t c = 0; c < components.count(); ++c)
            if (waiting[c] == 0) push(c);
        while (!ready.empty()) {
            const uint32_t c = ready.top().second;
            ready.pop();
            for (uint32_t node : members[c])
                for (uint32_t to : graph_[node])
                    if (region_of_[to] == id && to != cut && components.of(to) != c &&
                        --waiting[components.of(to)] == 0)
                        push(components.of(to));
            if (members[c].size() == 1) {
                result_.push_back(members[c].front());
            } else {
                loops_.push_back({std::move(members[c]), header[c], result_.size()});
                result_.insert(result_.end(), loops_.back().nodes.size(), kNone);
            }
        }
        // Loops are filled in after their surroundings, so that region ids stay valid while those are walked.
        std::vector<Loop> inner;
        inner.swap(loops_);
        for (Loop& loop : inner) {
            const uint32_t inner_id = next_region_++;
            for (uint32_t node : loop.nodes) region_of_[node] = inner_id;
            std::vector<uint32_t> outer;
            outer.swap(result_);
            region(loop.nodes, inner_id, loop.header, loop.header);
            std::copy(result_.begin(), result_.end(), outer.begin() + static_cast<std::ptrdiff_t>(loop.at));
            result_.swap(outer);
        }
    }

    struct Loop {
        std::vector<uint32_t> nodes;
        uint32_t header;
        size_t at;
    };
    const Graph& graph_;
    std::vector<uint32_t> region_of_;
    std::vector<Loop> loops_;
    std::vector<uint32_t> result_;
    uint32_t next_region_ = 1;
};

}  // namespace

std::vector<uint32_t> order_blocks(const Graph& successors) { return Order(successors).run(); }

}  // namespace vlmk::emulator
